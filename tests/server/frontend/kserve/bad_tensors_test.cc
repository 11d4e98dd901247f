// Malformed and hostile ModelInferRequests against a server in this process, as a table (R12 of the fault model): each
// has one documented code and message, over ModelInfer and over ModelStreamInfer, and after each the server serves.
#include <gtest/gtest.h>

#include <functional>

#include "inference/grpc_service.grpc.pb.h"
#include "tests/server/frontend/kserve/infer_requests.h"
#include "tests/server/frontend/raw_call.h"
#include "tests/server/frontend/test_server.h"

namespace switchyard::kserve {
namespace {

using Request = inference::ModelInferRequest;

constexpr grpc::StatusCode kInvalid = grpc::StatusCode::INVALID_ARGUMENT;

struct BadRequest {
  std::string name;
  Request request;
  std::string message;  // how it begins
  grpc::StatusCode code;
};

class Table {
 public:
  // Spoils a good request with raw contents.
  void Add(const std::string& name, const std::function<void(Request*)>& spoil, const std::string& message,
           grpc::StatusCode code = kInvalid) {
    Request request = Hello();
    spoil(&request);
    cases.push_back({name, request, message, code});
  }

  // A good prompt and one more raw tensor.
  void AddTensor(const std::string& name, const std::string& datatype, const std::vector<int64_t>& shape,
                 const std::string& raw, const std::string& message) {
    Request request;
    AddRawText("text_input", "hello", &request);
    AddRaw(name, datatype, shape, raw, &request);
    cases.push_back({name + " " + datatype, request, "tensor \"" + name + "\" " + message, kInvalid});
  }

  void AddJson(const std::string& json, const std::string& message) {
    Request request;
    AddRawText("text_input", "hello", &request);
    AddRawText("sampling_parameters", json, &request);
    cases.push_back({"JSON " + json.substr(0, 40), request, message, kInvalid});
  }

  // The prompt as a typed tensor.
  void AddTyped(const std::string& name, const std::function<void(Input*)>& fill, const std::string& message) {
    Request request;
    fill(AddInput("text_input", "BYTES", {1}, &request));
    cases.push_back({"typed " + name, request, message, kInvalid});
  }

  std::vector<BadRequest> cases;
};

void AddShapes(Table* table) {
  const std::string four = RawBytes<int32_t>({4});
  table->AddTensor("max_tokens", "INT32", {-1}, four, "has the shape [-1]; no dimension may be negative");
  table->AddTensor("max_tokens", "INT32", {1, -5}, four, "has the shape [1,-5]; no dimension may be negative");
  table->AddTensor("max_tokens", "INT32", {0, -1}, "", "has the shape [0,-1]; no dimension may be negative");
  table->AddTensor("max_tokens", "INT32", {INT64_MIN}, four, "has the shape [-9223372036854775808]; no dimension");
  table->AddTensor("max_tokens", "INT32", {INT64_MAX}, four,
                   "has the shape [9223372036854775807], more elements than the 268,435,456");
  // The product wraps around to 0, to 1 and to 2^32 + 1.
  table->AddTensor("max_tokens", "INT32", {int64_t{1} << 32, int64_t{1} << 32}, "",
                   "has the shape [4294967296,4294967296], more elements than the 268,435,456");
  table->AddTensor("max_tokens", "INT32", {int64_t{1} << 62, 4}, "",
                   "has the shape [4611686018427387904,4], more elements");
  table->AddTensor("max_tokens", "INT32", {3, 6148914691236517205}, four,
                   "has the shape [3,6148914691236517205], more elements");
  table->AddTensor("max_tokens", "INT32", {1 << 20, 1 << 20}, four, "has the shape [1048576,1048576], more elements");
  table->AddTensor("max_tokens", "INT32", {int64_t{1} << 28}, four,
                   "has the shape [268435456] of INT32, which is 1,073,741,824 bytes, but its raw contents have 4");
  table->AddTensor("max_tokens", "INT32", {1, 1, 1, 1, 1, 1, 1, 1, 1}, four, "has 9 dimensions; use at most 8");
  table->AddTensor("max_tokens", "INT32", {}, four, "has the shape []; use [1] or [1,1]");
  table->AddTensor("max_tokens", "INT32", {2}, RawBytes<int32_t>({4, 4}), "has the shape [2]; use [1] or [1,1]");
  table->AddTensor("max_tokens", "INT32", {0}, "", "has the shape [0]; use [1] or [1,1]");
  table->AddTensor("max_tokens", "INT32", {1, 1, 1}, four, "has the shape [1,1,1]; use [1] or [1,1]");
  table->AddTensor("stop", "BYTES", {2, 1}, RawTexts({"a", "b"}), "has the shape [2,1]; use [k] or [1,k]");
  table->AddTensor("stop", "BYTES", {}, RawTexts({"a"}), "has the shape []; use [k] or [1,k]");
}

void AddRawContents(Table* table) {
  for (const size_t size : {0u, 3u, 5u, 8u, 1'000'000u}) {
    table->AddTensor("max_tokens", "INT32", {1}, std::string(size, '\1'),
                     "has the shape [1] of INT32, which is 4 bytes, but its raw contents have " +
                         WithCommas(static_cast<int64_t>(size)));
  }
  table->AddTensor("seed", "UINT64", {1}, "1234", "has the shape [1] of UINT64, which is 8 bytes");
  table->AddTensor("stream", "BOOL", {1}, "", "has the shape [1] of BOOL, which is 1 byte");
  table->AddTensor("stream", "BOOL", {1}, "\x02", "has the byte 2; a BOOL is 0 or 1");
  table->AddTensor("stop", "BYTES", {1}, "", "has the shape [1], which is 1 element, but its 0 raw bytes end");
  table->AddTensor("stop", "BYTES", {1}, "\x01", "has the shape [1], which is 1 element, but its 1 raw byte end");
  table->AddTensor("stop", "BYTES", {1}, RawBytes<uint32_t>({5}) + "four",
                   "has the shape [1], which is 1 element, but its 8 raw bytes end inside element 0");
  table->AddTensor("stop", "BYTES", {1}, RawBytes<uint32_t>({UINT32_MAX}) + "x",
                   "has the shape [1], which is 1 element, but its 5 raw bytes end inside element 0");
  table->AddTensor("stop", "BYTES", {2}, RawTexts({"one"}),
                   "has the shape [2], which is 2 elements, but its 7 raw bytes end inside element 1");
  table->AddTensor("stop", "BYTES", {1}, RawTexts({"one", "two"}), "has 7 raw bytes after the last of the 1 element");
  table->AddTensor("stop", "BYTES", {0}, "x", "has 1 raw byte after the last of the 0 elements");
  table->AddTensor("stop", "BYTES", {int64_t{1} << 28}, RawTexts({"one"}),
                   "has the shape [268435456], which is 268,435,456 elements, but its 7 raw bytes end");
  table->Add(
      "a raw entry too few", [](Request* r) { r->mutable_raw_input_contents()->RemoveLast(); },
      "raw_input_contents has 1 entries for 2 inputs; use one for each");
  table->Add(
      "a raw entry too many", [](Request* r) { r->add_raw_input_contents("x"); },
      "raw_input_contents has 3 entries for 2 inputs; use one for each");
  table->Add(
      "raw entries without inputs", [](Request* r) { r->clear_inputs(); },
      "raw_input_contents has 2 entries for 0 inputs");
  table->Add(
      "raw and typed", [](Request* r) { r->mutable_inputs(1)->mutable_contents()->add_int_contents(3); },
      "tensor \"max_tokens\" has both contents and raw_input_contents; use one of them");
}

void AddTypedContents(Table* table) {
  table->AddTyped(
      "nothing", [](Input*) {},
      "tensor \"text_input\" has the shape [1], which is 1 element, but bytes_contents has 0");
  table->AddTyped(
      "two elements",
      [](Input* input) {
        input->mutable_contents()->add_bytes_contents("a");
        input->mutable_contents()->add_bytes_contents("b");
      },
      "tensor \"text_input\" has the shape [1], which is 1 element, but bytes_contents has 2");
  table->AddTyped(
      "another list", [](Input* input) { input->mutable_contents()->add_fp32_contents(1); },
      "tensor \"text_input\" has the shape [1], which is 1 element, but bytes_contents has 0");
  table->AddTyped(
      "a second list",
      [](Input* input) {
        input->mutable_contents()->add_bytes_contents("a");
        input->mutable_contents()->add_uint_contents(1);
      },
      "tensor \"text_input\" has the datatype BYTES, but uint_contents has elements; use bytes_contents alone");
  for (const std::string half : {"FP16", "BF16"}) {
    table->AddTyped(
        half, [=](Input* input) { input->set_datatype(half); },
        "tensor \"text_input\" has the datatype " + half + ", which needs raw_input_contents");
  }
}

void AddDatatypes(Table* table) {
  for (const std::string type : {"", "int32", "INT4", "STRING", "TYPE_INT32", "INT32 "}) {
    table->AddTensor("max_tokens", type, {1}, RawBytes<int32_t>({4}), "has the datatype \"");
  }
  const std::string eight(8, '\0');
  const std::vector<std::pair<std::string, size_t>> sizes = {{"BOOL", 1},  {"INT8", 1},   {"INT16", 2},
                                                             {"UINT8", 1}, {"UINT16", 2}, {"FP16", 2},
                                                             {"BF16", 2},  {"FP32", 4},   {"FP64", 8}};
  for (const auto& [type, size] : sizes) {
    table->AddTensor("max_tokens", type, {1}, eight.substr(0, size),
                     "has the datatype " + type + "; use INT32, INT64, UINT32 or UINT64");
  }
  table->AddTensor("max_tokens", "BYTES", {1}, RawTexts({"4"}), "has the datatype BYTES; use INT32, INT64, UINT32");
  table->AddTensor("temperature", "INT32", {1}, RawBytes<int32_t>({1}), "has the datatype INT32; use FP32 or FP64");
  table->AddTensor("temperature", "FP16", {1}, eight.substr(0, 2), "has the datatype FP16; use FP32 or FP64");
  table->AddTensor("stream", "UINT8", {1}, "\x01", "has the datatype UINT8; use BOOL");
  table->AddTensor("stop", "UINT8", {1}, "\x01", "has the datatype UINT8; use BYTES");
  table->AddTensor("sampling_parameters", "FP32", {1}, eight.substr(0, 4), "has the datatype FP32; use BYTES");
  table->AddTensor("seed", "INT64", {1}, RawBytes<int64_t>({-1}), "is -1; it may not be negative");
  table->AddTensor("max_tokens", "UINT64", {1}, RawBytes<uint64_t>({UINT64_MAX}),
                   "is 18446744073709551615; use less than 2^63");
}

void AddNames(Table* table) {
  for (const std::string name : {"", "TEXT_INPUT", "prompt", "return_logprobs", "images", "\n"}) {
    Request request = Hello();
    AddRaw(name, "INT32", {1}, RawBytes<int32_t>({1}), &request);
    const std::string shown = name == "\n" ? "?" : name;
    table->cases.push_back(
        {"unknown tensor", request, "tensor \"" + shown + "\" is unknown; ModelMetadata lists", kInvalid});
  }
  table->Add(
      "a long name", [](Request* r) { r->mutable_inputs(1)->set_name(std::string(1'000'000, 'n')); },
      "tensor \"" + std::string(64, 'n') + "...\" is unknown");
  table->Add(
      "a tensor twice", [](Request* r) { AddRaw("max_tokens", "INT32", {1}, RawBytes<int32_t>({1}), r); },
      "tensor \"max_tokens\" is there twice");
  table->Add(
      "many tensors",
      [](Request* r) {
        for (int i = 0; i < 31; ++i) AddRaw("t" + std::to_string(i), "BOOL", {1}, "\x01", r);
      },
      "inputs has 33 tensors; use at most 32");
  table->Add(
      "no tensors", [](Request* r) { r->Clear(); }, "tensor \"text_input\" is missing");
  table->Add(
      "no prompt",
      [](Request* r) {
        r->mutable_inputs()->DeleteSubrange(0, 1);
        r->mutable_raw_input_contents()->DeleteSubrange(0, 1);
      },
      "tensor \"text_input\" is missing; give the text to continue");
  table->Add(
      "shared memory",
      [](Request* r) {
        (*r->mutable_inputs(0)->mutable_parameters())["shared_memory_region"].set_string_param("region");
      },
      "tensor \"text_input\" has the parameter \"shared_memory_region\"; tensors travel in the message");
  table->Add(
      "an unknown output", [](Request* r) { r->add_outputs()->set_name("logits"); },
      "output \"logits\" is unknown; this model gives text_output, finish_reason, num_input_tokens, "
      "num_output_tokens");
  table->Add(
      "an output twice",
      [](Request* r) {
        r->add_outputs()->set_name("text_output");
        r->add_outputs()->set_name("text_output");
      },
      "output \"text_output\" is there twice");
  table->Add(
      "a parameter of an output",
      [](Request* r) {
        r->add_outputs()->set_name("text_output");
        (*r->mutable_outputs(0)->mutable_parameters())["classification"].set_int64_param(3);
      },
      "output \"text_output\" has the parameter \"classification\"");
  table->Add(
      "another model", [](Request* r) { r->set_model_name("other"); },
      "model \"other\" is not served here; this server has \"toy\"", grpc::StatusCode::NOT_FOUND);
  for (const std::string version : {"2", "0", "01", "latest", "1 "}) {
    table->Add(
        "version " + version, [=](Request* r) { r->set_model_version(version); },
        "version \"" + (version == "1 " ? "1?" : version) + "\" is not served here; leave it empty or use \"1\"",
        grpc::StatusCode::NOT_FOUND);
  }
  table->Add(
      "a long id", [](Request* r) { r->set_id(std::string(129, 'i')); }, "id has 129 bytes; use at most 128");
}

void AddPrompts(Table* table) {
  const auto with_prompt = [](const std::string& text) {
    return [=](Request* r) { r->set_raw_input_contents(0, RawTexts({text})); };
  };
  table->Add("R1 empty prompt", with_prompt(""), "tensor \"text_input\" is empty; give the text to continue");
  table->Add("R7 broken prompt", with_prompt("abc\xFF"), "tensor \"text_input\" is not valid UTF-8 (byte 3)");
  table->Add("R7 half a character", with_prompt("\xE2\x82"), "tensor \"text_input\" is not valid UTF-8 (byte 0)");
  table->Add("R2 long prompt", with_prompt(std::string(16'385, 'a')), "prompt has 16,385 bytes; this server accepts");
  table->Add("R2 many tokens", with_prompt(std::string(1024, 'a')), "prompt has 1,024 tokens; this server accepts");
}

void AddParameters(Table* table) {
  using Parameters = google::protobuf::Map<std::string, inference::InferParameter>;
  const auto add = [&](const std::string& name, const std::function<void(Parameters*)>& set,
                       const std::string& message) {
    table->Add(
        "parameter " + name, [&](Request* r) { set(r->mutable_parameters()); }, message);
  };
  add(
      "unknown", [](auto* p) { (*p)["temprature"].set_double_param(1); },
      "parameters.temprature is no sampling parameter that this server knows");
  add(
      "twice", [](auto* p) { (*p)["max_tokens"].set_int64_param(3); },
      "parameters.max_tokens is there twice, as a tensor and as a parameter");
  add(
      "wrong type", [](auto* p) { (*p)["ignore_eos"].set_int64_param(1); },
      "parameters.ignore_eos is neither true nor false");
  add(
      "not a number", [](auto* p) { (*p)["temperature"].set_string_param("hot"); },
      "parameters.temperature is no number");
  add(
      "beyond float", [](auto* p) { (*p)["temperature"].set_double_param(1e300); },
      "temperature is not a finite number");
  add(
      "sequence", [](auto* p) { (*p)["sequence_id"].set_int64_param(7); },
      "parameter \"sequence_id\" is set, but this server keeps no state");
  add(
      "timeout 0", [](auto* p) { (*p)["timeout"].set_int64_param(0); },
      "parameter \"timeout\" is 0 us; use at least 1");
  add(
      "timeout text", [](auto* p) { (*p)["timeout"].set_string_param("1"); },
      "parameter \"timeout\" is no whole number");
  add(
      "priority", [](auto* p) { (*p)["priority"].set_int64_param(1001); }, "priority is 1001; use a whole number");
  add(
      "huge priority", [](auto* p) { (*p)["priority"].set_uint64_param(uint64_t{1} << 40); },
      "parameter \"priority\" is 1099511627776; use -1,000 to 1,000");
  add(
      "many",
      [](auto* p) {
        for (int i = 0; i < 65; ++i) (*p)["p" + std::to_string(i)].set_bool_param(true);
      },
      "parameters has 65 entries; use at most 64");
}

void AddValues(Table* table) {
  const auto fp32 = [](float value) { return RawBytes<float>({value}); };
  struct Bad {
    std::string tensor, datatype, raw, message;
  };
  const std::vector<Bad> values = {
      {"temperature", "FP32", fp32(NAN), "temperature is not a finite number; use a value from 0 to 2"},
      {"temperature", "FP64", RawBytes<double>({1e300}), "temperature is not a finite number"},
      {"temperature", "FP32", fp32(2.5f), "temperature is 2.5; use a value from 0 to 2"},
      {"top_p", "FP32", fp32(0), "top_p is 0; use a value above 0, at most 1"},
      {"top_k", "INT32", RawBytes<int32_t>({-2}), "top_k is -2; use a whole number from 0 to 1,000,000"},
      {"max_tokens", "INT32", RawBytes<int32_t>({0}), "max_tokens is 0; use a whole number from 1 to 1,024"},
      {"max_tokens", "INT64", RawBytes<int64_t>({int64_t{1} << 40}), "max_tokens is no whole number of 32 bits"},
      {"max_tokens", "INT32", RawBytes<int32_t>({1020}), "max_tokens is 1020, but prompt 5 + max_tokens exceed"},
      {"stop", "BYTES", RawTexts({""}), "stop[0] is empty; use 1 to 256 bytes"},
      {"stop", "BYTES", RawTexts({"a\xFF"}), "stop[0] is not valid UTF-8 (byte 1)"},
      {"stop_words", "BYTES", RawTexts({std::string(257, 's')}), "stop[0] has 257 bytes; use 1 to 256 bytes"},
  };
  for (const Bad& bad : values) {
    Request request;
    AddRawText("text_input", "hello", &request);
    AddRaw(bad.tensor, bad.datatype, {1}, bad.raw, &request);
    table->cases.push_back({bad.tensor, request, bad.message, kInvalid});
  }
  table->AddTensor("exclude_input_in_output", "BOOL", {2}, std::string(2, '\0'), "has the shape [2]; use [1] or [1,1]");
  Request many_stops;
  AddRawText("text_input", "hello", &many_stops);
  AddRaw("stop", "BYTES", {100'000}, RawTexts(std::vector<std::string>(100'000, "x")), &many_stops);
  table->cases.push_back({"many stops", many_stops, "stop has 100,000 strings; use at most 16", kInvalid});
  Request many_empty_stops;
  AddRawText("text_input", "hello", &many_empty_stops);
  AddRaw("stop", "BYTES", {1'500'000}, std::string(6'000'000, '\0'), &many_empty_stops);
  table->cases.push_back(
      {"many empty stops", many_empty_stops, "stop has 1,500,000 strings; use at most 16", kInvalid});
}

void AddJson(Table* table) {
  table->AddJson("", "sampling_parameters: ");
  table->AddJson("{", "sampling_parameters: ");
  table->AddJson("[]", "sampling_parameters is no JSON object");
  table->AddJson("null", "sampling_parameters is no JSON object");
  table->AddJson("{\"seed\": 1, \"seed\": 2}", "sampling_parameters: ");
  table->AddJson("{\"temperature\": 1e400}", "sampling_parameters: ");
  table->AddJson("{\"temperature\": NaN}", "sampling_parameters: ");
  table->AddJson("\xFF", "sampling_parameters: ");
  table->AddJson(std::string(100'000, '['), "sampling_parameters: ");
  table->AddJson("{\"stop\": [" + std::string(70'000, ' ') + "]}", "sampling_parameters: ");
  table->AddJson("{\"beam_width\": 1}", "sampling_parameters.beam_width is no sampling parameter");
  table->AddJson("{\"a b\": 1}", "sampling_parameters.a?b is no sampling parameter");
  table->AddJson("{\"max_tokens\": 1.5}", "sampling_parameters.max_tokens is no whole number of 32 bits");
  table->AddJson("{\"max_tokens\": \"4 \"}", "sampling_parameters.max_tokens is no whole number of 32 bits");
  table->AddJson("{\"max_tokens\": 4294967297}", "sampling_parameters.max_tokens is no whole number of 32 bits");
  table->AddJson("{\"max_tokens\": [4]}", "sampling_parameters.max_tokens is no whole number of 32 bits");
  table->AddJson("{\"seed\": -1}", "sampling_parameters.seed is no whole number from 0 to 2^64 - 1");
  table->AddJson("{\"temperature\": true}", "sampling_parameters.temperature is no number");
  table->AddJson("{\"temperature\": \"nan\"}", "temperature is not a finite number");
  table->AddJson("{\"stop\": {}}", "sampling_parameters.stop is no text");
  table->AddJson("{\"stop\": [\"a\", 1]}", "sampling_parameters.stop[1] is no text");
  table->AddJson("{\"stop_token_ids\": 3}", "sampling_parameters.stop_token_ids is no list");
  table->AddJson("{\"stop_token_ids\": [257]}", "stop_token_ids[0] is token 257, but this model has tokens 0 to 256");
  table->AddJson("{\"logit_bias\": [1]}", "sampling_parameters.logit_bias is no object");
  table->AddJson("{\"logit_bias\": {\"x\": 1}}", "sampling_parameters.logit_bias[x] has a key that is no token id");
  table->AddJson("{\"logit_bias\": {\"1\": \"x\"}}", "sampling_parameters.logit_bias[1] is no number");
  table->AddJson("{\"n\": 17}", "n is 17; use a whole number from 1 to 16");
  table->AddJson("{\"n\": -2000000000}", "n is -2000000000; use a whole number from 1 to 16");
}

Table AllBadRequests() {
  Table table;
  AddShapes(&table);
  AddRawContents(&table);
  AddTypedContents(&table);
  AddDatatypes(&table);
  AddNames(&table);
  AddPrompts(&table);
  AddParameters(&table);
  AddValues(&table);
  AddJson(&table);
  return table;
}

class BadTensorsTest : public testing::Test {
 protected:
  void ExpectGoodService() {
    grpc::ClientContext context;
    inference::ModelInferResponse response;
    const grpc::Status status = stub_->ModelInfer(&context, Hello(), &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    ASSERT_EQ(OutputTexts(response, "text_output"), std::vector<std::string>{"hel"});
  }

  TestServer server_;
  std::unique_ptr<inference::GRPCInferenceService::Stub> stub_ =
      inference::GRPCInferenceService::NewStub(server_.channel);
};

TEST_F(BadTensorsTest, R12EachHasItsAnswerAndHarmsNobody) {
  const Table table = AllBadRequests();
  ASSERT_GE(table.cases.size(), 100u);
  for (const BadRequest& bad : table.cases) {
    SCOPED_TRACE(bad.name);
    grpc::ClientContext context;
    inference::ModelInferResponse response;
    const grpc::Status status = stub_->ModelInfer(&context, bad.request, &response);
    EXPECT_EQ(status.error_code(), bad.code) << status.error_message();
    EXPECT_EQ(status.error_message().substr(0, bad.message.size()), bad.message);
    EXPECT_LT(status.error_message().size(), 600u);
    ExpectGoodService();
  }
  EXPECT_TRUE(server_.BecomesIdle());
  std::printf("%zu bad requests\n", table.cases.size());
}

TEST_F(BadTensorsTest, R12OneStreamAnswersAllOfThemAndGoesOn) {
  const Table table = AllBadRequests();
  grpc::ClientContext context;
  const auto stream = stub_->ModelStreamInfer(&context);
  inference::ModelStreamInferResponse answer;
  for (const BadRequest& bad : table.cases) {
    SCOPED_TRACE(bad.name);
    ASSERT_TRUE(stream->Write(bad.request));
    ASSERT_TRUE(stream->Read(&answer));
    EXPECT_EQ(answer.error_message().substr(0, bad.message.size()), bad.message);
    const auto& response = answer.infer_response();
    EXPECT_EQ(response.id(), bad.request.id().size() > 128 ? "" : bad.request.id());
    EXPECT_TRUE(response.parameters().at("triton_final_response").bool_param());
    EXPECT_EQ(response.parameters().at("status_code").string_param(),
              bad.code == kInvalid ? "INVALID_ARGUMENT" : "NOT_FOUND");
  }
  ASSERT_TRUE(stream->Write(Hello()));
  ASSERT_TRUE(stream->Read(&answer));
  EXPECT_EQ(OutputTexts(answer.infer_response(), "text_output"), std::vector<std::string>{"hel"});
  stream->WritesDone();
  EXPECT_FALSE(stream->Read(&answer));
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_TRUE(server_.BecomesIdle());
}

TEST_F(BadTensorsTest, OnlyUnaryCallsRefuseToStream) {
  Request request = Hello();
  AddRaw("stream", "BOOL", {1}, "\x01", &request);
  grpc::ClientContext context;
  inference::ModelInferResponse response;
  const grpc::Status status = stub_->ModelInfer(&context, request, &response);
  EXPECT_EQ(status.error_code(), kInvalid);
  EXPECT_EQ(status.error_message(), "tensor \"stream\" is true, but ModelInfer answers once; use ModelStreamInfer");

  AddRaw("exclude_input_in_output", "BOOL", {1}, std::string(1, '\0'), &request);
  grpc::ClientContext stream_context;
  const auto stream = stub_->ModelStreamInfer(&stream_context);
  inference::ModelStreamInferResponse answer;
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&answer));
  EXPECT_EQ(answer.error_message(),
            "tensor \"exclude_input_in_output\" is false, but a stream holds new text only; leave one of them out");
}

TEST_F(BadTensorsTest, R10BytesThatAreNoMessage) {
  const std::string service = "/inference.GRPCInferenceService/";
  for (const std::string method :
       {"ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"}) {
    const grpc::Status status = RawCall(server_.channel.get(), service + method, false, "\xFF\xFF\xFF");
    EXPECT_EQ(status.error_code(), kInvalid) << method;
    EXPECT_EQ(status.error_message().substr(0, 43), "the request is not a valid inference." + method.substr(0, 6));
    ExpectGoodService();
  }
  const std::string broken_utf8 = "\x0A\x02\xC3(";
  EXPECT_EQ(RawCall(server_.channel.get(), service + "ModelInfer", false, broken_utf8).error_message(),
            "model_name is not valid UTF-8 (byte 0)");
}

TEST_F(BadTensorsTest, ModelsAndVersionsThatAreNotHere) {
  for (const auto& [name, version] : std::vector<std::pair<std::string, std::string>>{{"other", ""}, {"toy", "2"}}) {
    inference::ModelReadyRequest ready;
    ready.set_name(name);
    ready.set_version(version);
    grpc::ClientContext context;
    inference::ModelReadyResponse is_ready;
    EXPECT_EQ(stub_->ModelReady(&context, ready, &is_ready).error_code(), grpc::StatusCode::NOT_FOUND);
    inference::ModelMetadataRequest metadata;
    metadata.set_name(name);
    metadata.set_version(version);
    grpc::ClientContext metadata_context;
    inference::ModelMetadataResponse description;
    EXPECT_EQ(stub_->ModelMetadata(&metadata_context, metadata, &description).error_code(),
              grpc::StatusCode::NOT_FOUND);
  }
}

}  // namespace
}  // namespace switchyard::kserve
