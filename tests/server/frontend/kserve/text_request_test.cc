// What tensors, parameters and JSON mean as a GenerateRequest, and what its answers look like as tensors.
#include "server/frontend/kserve/text_request.h"

#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "server/frontend/kserve/text_response.h"
#include "tests/server/frontend/kserve/infer_requests.h"

namespace switchyard::kserve {
namespace {

using google::protobuf::util::MessageDifferencer;

constexpr int64_t kMaxMessageBytes = 64;

TextRequest MustRead(const inference::ModelInferRequest& request) {
  auto text = ReadTextRequest(request, kMaxMessageBytes);
  EXPECT_TRUE(text.ok()) << text.status();
  return text.ok() ? *std::move(text) : TextRequest();
}

// Every parameter that a tensor can set.
inference::ModelInferRequest EveryTensor(bool raw) {
  inference::ModelInferRequest request;
  const auto add = [&](const std::string& name, const std::string& type, std::vector<int64_t> shape,
                       const std::string& bytes) {
    Input* input = AddInput(name, type, shape, &request);
    if (raw) {
      request.add_raw_input_contents(bytes);
      return;
    }
    auto* contents = input->mutable_contents();
    if (type == "INT32") contents->add_int_contents(*reinterpret_cast<const int32_t*>(bytes.data()));
    if (type == "FP32") contents->add_fp32_contents(*reinterpret_cast<const float*>(bytes.data()));
    if (type == "UINT64") contents->add_uint64_contents(*reinterpret_cast<const uint64_t*>(bytes.data()));
    if (type == "BOOL") contents->add_bool_contents(bytes[0] != 0);
    if (type != "BYTES") return;
    for (size_t at = 0; at < bytes.size();) {
      const size_t size = static_cast<uint8_t>(bytes[at]);
      contents->add_bytes_contents(bytes.substr(at + 4, size));
      at += 4 + size;
    }
  };
  add("text_input", "BYTES", {1, 1}, RawTexts({"Once upon"}));
  add("stream", "BOOL", {1}, "\x01");
  add("max_tokens", "INT32", {1, 1}, RawBytes<int32_t>({7}));
  add("min_tokens", "INT32", {1}, RawBytes<int32_t>({2}));
  add("temperature", "FP32", {1}, RawBytes<float>({0.5f}));
  add("top_p", "FP32", {1}, RawBytes<float>({0.25f}));
  add("top_k", "INT32", {1}, RawBytes<int32_t>({40}));
  add("min_p", "FP32", {1}, RawBytes<float>({0.125f}));
  add("repetition_penalty", "FP32", {1}, RawBytes<float>({1.5f}));
  add("presence_penalty", "FP32", {1}, RawBytes<float>({-0.5f}));
  add("frequency_penalty", "FP32", {1}, RawBytes<float>({0.75f}));
  add("seed", "UINT64", {1}, RawBytes<uint64_t>({UINT64_MAX}));
  add("stop", "BYTES", {1, 2}, RawTexts({"\n", "end"}));
  add("ignore_eos", "BOOL", {1}, "\x01");
  return request;
}

v1::GenerateRequest Expected() {
  v1::GenerateRequest expected;
  expected.set_text("Once upon");
  expected.set_max_tokens(7);
  expected.set_min_tokens(2);
  expected.set_temperature(0.5f);
  expected.set_top_p(0.25f);
  expected.set_top_k(40);
  expected.set_min_p(0.125f);
  expected.set_repetition_penalty(1.5f);
  expected.set_presence_penalty(-0.5f);
  expected.set_frequency_penalty(0.75f);
  expected.set_seed(UINT64_MAX);
  expected.add_stop("\n");
  expected.add_stop("end");
  expected.set_ignore_eos(true);
  return expected;
}

constexpr char kEveryNumber[] = R"("max_tokens": 7, "min_tokens": "2", "temperature": 0.5, "top_p": "0.25", "top_k": 40,
    "min_p": 0.125, "repetition_penalty": 1.5, "presence_penalty": -0.5, "frequency_penalty": "0.75",
    "seed": 18446744073709551615, "ignore_eos": true)";

TEST(TextRequestTest, TensorsSetEveryFieldRawAndTyped) {
  for (const bool raw : {true, false}) {
    const TextRequest text = MustRead(EveryTensor(raw));
    EXPECT_TRUE(MessageDifferencer::Equals(text.generate, Expected())) << text.generate.ShortDebugString();
    EXPECT_TRUE(text.stream);
  }
}

TEST(TextRequestTest, ThePromptBeforeEachChoiceFitsIntoOneMessage) {
  inference::ModelInferRequest request;
  AddTypedText("text_input", std::string(16, 'p'), &request);
  AddTypedText("sampling_parameters", R"({"n": 4})", &request);
  AddInput("exclude_input_in_output", "BOOL", {1}, &request)->mutable_contents()->add_bool_contents(false);
  EXPECT_EQ(MustRead(request).reply.prefix.size(), 16u);
  request.mutable_inputs(1)->mutable_contents()->set_bytes_contents(0, R"({"n": 5})");
  EXPECT_EQ(
      ReadTextRequest(request, kMaxMessageBytes).status().message(),
      "tensor \"exclude_input_in_output\" is false, and 5 times the prompt of 16 bytes is more than the 64 bytes of "
      "a message; leave it out or use a smaller n");
}

TEST(TextRequestTest, JsonSetsTheSameFieldsWithNumbersAsTextToo) {
  inference::ModelInferRequest request;
  AddTypedText("text_input", "Once upon", &request);
  AddTypedText("sampling_parameters",
               std::string("{") + kEveryNumber + R"(, "stop": ["\n", "end"], "logprobs_": null})", &request);
  EXPECT_FALSE(ReadTextRequest(request, kMaxMessageBytes).ok()) << "an unknown name is an error, null or not";

  request.mutable_inputs(1)->mutable_contents()->set_bytes_contents(
      0, std::string("{") + kEveryNumber + R"(, "stop": ["\n", "end"], "stop_token_ids": null})");
  const TextRequest text = MustRead(request);
  EXPECT_TRUE(MessageDifferencer::Equals(text.generate, Expected())) << text.generate.ShortDebugString();
  EXPECT_FALSE(text.stream);
}

TEST(TextRequestTest, JsonOnlyFields) {
  inference::ModelInferRequest request;
  AddTypedText("text_input", "x", &request);
  AddTypedText("sampling_parameters",
               R"({"n": 3, "stop": "one", "stop_token_ids": [4, "5"], "skip_special_tokens": false, "top_k": -1,
                   "include_stop_str_in_output": "true", "logit_bias": {"17": -1.5}})",
               &request);
  v1::GenerateRequest expected;
  expected.set_text("x");
  expected.set_n(3);
  expected.add_stop("one");
  expected.add_stop_token_ids(4);
  expected.add_stop_token_ids(5);
  expected.set_skip_special_tokens(false);
  expected.set_include_stop(true);
  expected.set_top_k(0);
  (*expected.mutable_logit_bias())[17] = -1.5f;
  const TextRequest text = MustRead(request);
  EXPECT_TRUE(MessageDifferencer::Equals(text.generate, expected)) << text.generate.ShortDebugString();
  EXPECT_EQ(text.reply.n, 3);
}

TEST(TextRequestTest, ParametersCountUnlessThereIsAJsonTensor) {
  inference::ModelInferRequest request;
  AddRawText("text_input", "x", &request);
  auto& parameters = *request.mutable_parameters();
  parameters["temperature"].set_string_param("0.5");
  parameters["top_p"].set_double_param(0.25);
  parameters["max_tokens"].set_int64_param(9);
  parameters["seed"].set_uint64_param(UINT64_MAX);
  parameters["ignore_eos"].set_bool_param(true);
  parameters["stop"].set_string_param("end");
  parameters["timeout"].set_int64_param(1'500'000);
  parameters["priority"].set_uint64_param(3);
  parameters["triton_enable_empty_final_response"].set_bool_param(true);
  const TextRequest text = MustRead(request);
  EXPECT_EQ(text.generate.temperature(), 0.5f);
  EXPECT_EQ(text.generate.top_p(), 0.25f);
  EXPECT_EQ(text.generate.max_tokens(), 9);
  EXPECT_EQ(text.generate.seed(), UINT64_MAX);
  EXPECT_TRUE(text.generate.ignore_eos());
  EXPECT_EQ(text.generate.stop(0), "end");
  EXPECT_EQ(text.generate.priority(), 3);
  EXPECT_EQ(text.timeout, std::chrono::milliseconds(1500));

  AddRawText("sampling_parameters", R"({"temperature": 0.75})", &request);
  const TextRequest from_tensor = MustRead(request);
  EXPECT_EQ(from_tensor.generate.temperature(), 0.75f);
  EXPECT_FALSE(from_tensor.generate.has_max_tokens());
  EXPECT_EQ(from_tensor.generate.priority(), 3) << "the protocol's own parameters always count";
}

TEST(TextRequestTest, IdsAreRequestIdsWhereTheyCanBe) {
  inference::ModelInferRequest request = Hello();
  EXPECT_EQ(MustRead(request).generate.request_id(), "r1");
  request.set_id("caf\xC3\xA9 #1");
  EXPECT_EQ(MustRead(request).generate.request_id(), "");
  EXPECT_EQ(MustRead(request).reply.id, "caf\xC3\xA9 #1");
}

v1::GenerateResponse Answer() {
  v1::GenerateResponse answer;
  answer.mutable_prompt()->set_model("toy");
  answer.mutable_prompt()->set_prompt_tokens(5);
  auto* first = answer.add_choices();
  first->set_text("one");
  first->add_token_ids(1);
  first->set_finish_reason(v1::FINISH_REASON_EOS);
  auto* second = answer.add_choices();
  second->set_index(1);
  second->set_text("two!");
  second->add_token_ids(1);
  second->add_token_ids(2);
  second->set_finish_reason(v1::FINISH_REASON_LENGTH);
  return answer;
}

TEST(TextAnswersTest, TheWholeAnswerHasOneElementPerChoice) {
  TextReply reply;
  reply.id = "x";
  reply.n = 2;
  reply.prefix = "> ";
  reply.outputs = {TextOutput::kNumOutputTokens, TextOutput::kText, TextOutput::kFinishReason,
                   TextOutput::kNumInputTokens};
  const auto response = TextAnswers(reply).Whole(Answer());
  EXPECT_EQ(response.model_name(), "toy");
  EXPECT_EQ(response.model_version(), "1");
  EXPECT_EQ(response.id(), "x");
  ASSERT_EQ(response.outputs_size(), 4);
  ASSERT_EQ(response.raw_output_contents_size(), 4);
  EXPECT_EQ(response.outputs(0).name(), "num_output_tokens") << "in the order that they were asked for";
  EXPECT_EQ(response.outputs(0).shape(0), 2);
  EXPECT_EQ(response.raw_output_contents(0), RawBytes<uint32_t>({1, 2}));
  EXPECT_EQ(OutputTexts(response, "text_output"), (std::vector<std::string>{"> one", "> two!"}));
  EXPECT_EQ(OutputTexts(response, "finish_reason"), (std::vector<std::string>{"stop", "length"}));
  EXPECT_EQ(response.outputs(3).shape(0), 1);
  EXPECT_EQ(response.raw_output_contents(3), RawBytes<uint32_t>({5}));
}

TEST(TextAnswersTest, StreamedAnswersHoldWhatIsNew) {
  TextReply reply;
  reply.n = 2;
  reply.outputs = {TextOutput::kText, TextOutput::kFinishReason, TextOutput::kNumInputTokens};
  TextAnswers answers(reply);
  v1::GenerateStreamResponse message;
  message.mutable_prompt()->set_model("toy");
  message.mutable_prompt()->set_prompt_tokens(5);
  message.add_choices()->set_index(1);
  message.mutable_choices(0)->set_text("b");
  EXPECT_EQ(OutputTexts(answers.Next(message), "text_output"), (std::vector<std::string>{"", "b"}));
  message.clear_prompt();
  message.mutable_choices(0)->set_finish_reason(v1::FINISH_REASON_CANCELLED);
  const auto second = answers.Next(message);
  EXPECT_EQ(second.model_name(), "toy") << "although only the first message says it";
  EXPECT_EQ(second.raw_output_contents(2), RawBytes<uint32_t>({5}));
  EXPECT_EQ(OutputTexts(second, "finish_reason"), (std::vector<std::string>{"", "abort"}));
}

TEST(TextAnswersTest, OutputsAreTheTextAndWhatWasAskedFor) {
  inference::ModelInferRequest request = Hello();
  EXPECT_EQ(MustRead(request).reply.outputs, std::vector<TextOutput>{TextOutput::kText});
  AddRaw("return_num_input_tokens", "BOOL", {1}, "\x01", &request);
  AddRaw("return_finish_reason", "BOOL", {1}, std::string(1, '\0'), &request);
  EXPECT_EQ(MustRead(request).reply.outputs, (std::vector<TextOutput>{TextOutput::kText, TextOutput::kNumInputTokens}));
  request.add_outputs()->set_name("finish_reason");
  EXPECT_EQ(MustRead(request).reply.outputs, std::vector<TextOutput>{TextOutput::kFinishReason})
      << "a list of outputs is exactly what comes";
}

TEST(TextRequestTest, ThePromptComesBackOnRequest) {
  inference::ModelInferRequest request = Hello();
  EXPECT_EQ(MustRead(request).reply.prefix, "");
  AddRaw("exclude_input_in_output", "BOOL", {1}, std::string(1, '\0'), &request);
  EXPECT_EQ(MustRead(request).reply.prefix, "hello");
}

TEST(TextRequestTest, MetadataNamesEveryTensorThatIsRead) {
  inference::ModelMetadataResponse metadata;
  DescribeTextTensors(&metadata);
  const inference::ModelInferRequest request = EveryTensor(true);
  for (const auto& input : request.inputs()) {
    int found = 0;
    for (const auto& known : metadata.inputs()) {
      if (known.name() == input.name()) found += known.datatype() == input.datatype() ? 1 : 100;
    }
    EXPECT_EQ(found, 1) << input.name();
  }
  EXPECT_EQ(metadata.outputs_size(), 4);
}

}  // namespace
}  // namespace switchyard::kserve
