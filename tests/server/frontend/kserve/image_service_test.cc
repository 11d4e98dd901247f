// Images as tensors against a server in this process with a tiny classifier: the logits of the classifier alone,
// whatever else runs, and each malformed request its documented status.
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <limits>
#include <random>
#include <thread>

#include "engine/vision/classifier_engine.h"
#include "engine/vision/pixels.h"
#include "inference/grpc_service.grpc.pb.h"
#include "server/frontend/frontend.h"
#include "server/frontend/step_observer.h"
#include "switchyard/v1/inference_service.grpc.pb.h"
#include "tests/server/frontend/kserve/infer_requests.h"

namespace switchyard::kserve {
namespace {

using Api = inference::GRPCInferenceService;

constexpr int32_t kPlaces = 3;                // images per step
constexpr std::chrono::seconds kFlushTime{10};  // more than main gives: threads of clients may come late
const std::vector<int64_t> kOneImage = {1, 16, 16, 3};
constexpr size_t kImageValues = 16 * 16 * 3;

ImageClassifierOptions Options() {
  ImageClassifierOptions options;
  options.backend.device = "cpu";
  options.backend.num_threads = 1;
  options.max_batch = kPlaces;
  return options;
}

std::string Folder() { return std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/fixtures/vmoe_plain"; }

// A classifier whose steps can be slowed down and made to hang.
class SlowEngine final : public Engine {
 public:
  const ModelFacts& facts() const override { return engine_->facts(); }
  absl::Status Launch(const StepBatch& batch) override {
    largest_step = std::max(largest_step.load(), static_cast<int>(batch.slices.size()));
    std::this_thread::sleep_for(std::chrono::milliseconds(step_millis.load()));
    while (hangs) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return engine_->Launch(batch);
  }
  absl::StatusOr<const StepOutput*> Collect() override { return engine_->Collect(); }

  std::atomic<int> step_millis{0};
  std::atomic<int> largest_step{0};
  std::atomic<bool> hangs{false};

 private:
  const std::unique_ptr<Engine> engine_ = *CreateClassifierEngine(Folder(), Options());
};

struct ImageServer {
  explicit ImageServer(int64_t max_queued = 100) : queue(max_queued, 1'000'000) {
    GrpcOptions grpc;
    grpc.host = "127.0.0.1";
    grpc.port = 0;
    SchedulingOptions scheduling;
    scheduling.max_num_queued_reqs = max_queued;
    frontend = *Frontend::Listen(grpc, scheduling, &metrics);
    const ModelFacts& facts = engine.facts();
    SchedulerOptions scheduler;
    scheduler.max_num_seqs = facts.num_kv_blocks;
    scheduler.max_num_batched_tokens = facts.num_kv_blocks * (facts.max_model_len + 1);
    scheduler.max_model_len = facts.max_model_len;
    scheduler.block_size = facts.block_size;
    scheduler.num_kv_blocks = facts.num_kv_blocks;
    scheduler.enable_prefix_caching = false;
    scheduler.enable_chunked_prefill = false;
    scheduler.max_preemptions = 0;
    metrics.SetModel(facts, "auto");
    observer = std::make_unique<StepObserver>(&metrics, frontend.get());
    loop = std::make_unique<ServingLoop>(&engine, &queue, scheduler, observer.get());
    loop->Start();
    RequestLimits limits;
    limits.served_model_name = "eyes";
    limits.max_model_len = facts.max_model_len;
    limits.moe_layers = facts.moe_layers;
    frontend->BeginServing({facts, limits, scheduler, nullptr, &queue, nullptr}, [] { return true; });
    channel = grpc::CreateChannel("127.0.0.1:" + std::to_string(frontend->port()), grpc::InsecureChannelCredentials());
    stub = Api::NewStub(channel);
    text = v1::InferenceService::NewStub(channel);
  }

  ~ImageServer() {
    if (!drained) Drain(std::chrono::seconds(0));
  }

  bool Drain(std::chrono::milliseconds limit) {
    drained = true;
    const auto deadline = std::chrono::steady_clock::now() + limit;
    frontend->BeginDraining();
    const bool ended = loop->Drain(deadline);
    frontend->Shutdown(std::max(std::chrono::steady_clock::now(), deadline) + kFlushTime);
    return ended;
  }

  grpc::Status Infer(const inference::ModelInferRequest& request, inference::ModelInferResponse* response,
                     std::chrono::milliseconds timeout = std::chrono::seconds(60)) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + timeout);
    return stub->ModelInfer(&context, request, response);
  }

  bool BecomesIdle() {
    for (int i = 0; i < 6000; ++i) {
      const SchedulerCounts counts = metrics.counts();
      if (counts.running == 0 && counts.waiting == 0 && counts.kv_blocks_used == 0 && metrics.open_calls() == 0)
        return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  // Until a step has begun.
  void AwaitStep() {
    while (engine.largest_step == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  SlowEngine engine;
  ServingMetrics metrics{"eyes", "1"};
  RequestQueue queue;
  std::unique_ptr<Frontend> frontend;
  std::unique_ptr<StepObserver> observer;
  std::unique_ptr<ServingLoop> loop;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<Api::Stub> stub;
  std::unique_ptr<v1::InferenceService::Stub> text;
  bool drained = false;
};

std::vector<float> RandomImages(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> values(-1.0f, 1.0f);
  std::vector<float> images(count * kImageValues);
  for (float& value : images) value = values(random);
  return images;
}

inference::ModelInferRequest Floats(const std::vector<float>& images) {
  inference::ModelInferRequest request;
  request.set_id("img");
  AddRaw("images", "FP32", {static_cast<int64_t>(images.size() / kImageValues), 16, 16, 3}, RawBytes(images), &request);
  return request;
}

// What the classifier says of each image alone.
std::string LogitsAlone(const std::vector<float>& images) {
  static const std::unique_ptr<ImageClassifier> classifier = *ImageClassifier::Load(Folder(), Options());
  std::vector<float> all;
  std::vector<float> logits(static_cast<size_t>(classifier->info().num_classes));
  for (size_t at = 0; at < images.size(); at += kImageValues) {
    EXPECT_TRUE(classifier->Classify(std::span(images).subspan(at, kImageValues), 1, logits, nullptr).ok());
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return RawBytes(all);
}

TEST(ImageServiceTest, LogitsAreThoseOfTheImagesAloneWhateverElseRuns) {
  ImageServer server;
  server.engine.step_millis = 2;
  std::vector<std::vector<float>> images;
  std::vector<std::string> expected;
  for (uint32_t i = 0; i < 24; ++i) {
    images.push_back(RandomImages(1 + i % 5, i));  // some more than fit a step
    expected.push_back(LogitsAlone(images.back()));
  }
  std::vector<std::thread> clients;
  for (size_t c = 0; c < 8; ++c) {
    clients.emplace_back([&, c] {
      for (size_t i = c; i < images.size(); i += 8) {
        inference::ModelInferResponse response;
        const grpc::Status status = server.Infer(Floats(images[i]), &response);
        ASSERT_TRUE(status.ok()) << status.error_message();
        ASSERT_EQ(response.outputs_size(), 1);
        EXPECT_EQ(response.outputs(0).name(), "logits");
        EXPECT_EQ(response.outputs(0).datatype(), "FP32");
        EXPECT_EQ(response.outputs(0).shape(0), static_cast<int64_t>(images[i].size() / kImageValues));
        EXPECT_EQ(response.outputs(0).shape(1), 7);
        EXPECT_EQ(response.id(), "img");
        EXPECT_EQ(response.model_name(), "eyes");
        EXPECT_TRUE(response.raw_output_contents(0) == expected[i]) << "image set " << i;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(server.engine.largest_step, kPlaces) << "images of several requests share a step";
  EXPECT_TRUE(server.BecomesIdle());
}

TEST(ImageServiceTest, BytesAreTakenToTheSameRangeRawAndTyped) {
  ImageServer server;
  std::vector<uint8_t> pixels(kImageValues);
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<uint8_t>(i * 7);
  std::vector<float> values(pixels.size());
  PixelsToUnitRange(pixels, values);
  inference::ModelInferRequest raw;
  AddRaw("images", "UINT8", kOneImage, RawBytes(pixels), &raw);
  inference::ModelInferRequest typed;
  Input* input = AddInput("images", "UINT8", kOneImage, &typed);
  for (const uint8_t pixel : pixels) input->mutable_contents()->add_uint_contents(pixel);
  inference::ModelInferRequest typed_floats;
  Input* floats = AddInput("images", "FP32", kOneImage, &typed_floats);
  for (const float value : values) floats->mutable_contents()->add_fp32_contents(value);
  for (const auto& request : {Floats(values), raw, typed, typed_floats}) {
    inference::ModelInferResponse response;
    const grpc::Status status = server.Infer(request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_TRUE(response.raw_output_contents(0) == LogitsAlone(values));
  }
}

TEST(ImageServiceTest, AStreamClassifiesToo) {
  ImageServer server;
  grpc::ClientContext context;
  const auto stream = server.stub->ModelStreamInfer(&context);
  const std::vector<float> images = RandomImages(2, 1);
  inference::ModelInferRequest bad = Floats(images);
  bad.mutable_inputs(0)->set_datatype("INT8");
  bad.set_id("bad");
  ASSERT_TRUE(stream->Write(Floats(images)));
  inference::ModelStreamInferResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  EXPECT_TRUE(answer.infer_response().raw_output_contents(0) == LogitsAlone(images));
  EXPECT_TRUE(answer.infer_response().parameters().at("triton_final_response").bool_param());
  ASSERT_TRUE(stream->Write(bad));
  ASSERT_TRUE(stream->Read(&answer));
  EXPECT_EQ(answer.infer_response().id(), "bad");
  EXPECT_EQ(answer.infer_response().parameters().at("status_code").string_param(), "INVALID_ARGUMENT");
  stream->WritesDone();
  EXPECT_FALSE(stream->Read(&answer));
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_TRUE(server.BecomesIdle());
}

TEST(ImageServiceTest, ExpertsAreCountedAsForText) {
  ImageServer server;
  inference::ModelInferResponse response;
  ASSERT_TRUE(server.Infer(Floats(RandomImages(5, 3)), &response).ok());
  ASSERT_TRUE(server.BecomesIdle());
  const ModelFacts& facts = server.engine.facts();
  const auto totals = server.metrics.ExpertSnapshot();
  uint64_t rows = 0;
  for (const uint64_t expert : totals->tokens) rows += expert;
  for (const uint64_t dropped : totals->dropped) rows += dropped;
  EXPECT_EQ(totals->num_tokens, static_cast<uint64_t>(5 * facts.tokens_per_image));
  EXPECT_EQ(rows, totals->num_tokens * static_cast<uint64_t>(facts.top_k) * facts.moe_layers.size());
  EXPECT_NE(server.metrics.Scrape().find("switchyard_moe_expert_tokens_total{model_name=\"eyes\",layer=\"1\""),
            std::string::npos);
}

TEST(ImageServiceTest, MalformedImagesHaveEachTheirAnswer) {
  using Request = inference::ModelInferRequest;
  struct Bad {
    std::string name;
    std::function<void(Request*)> spoil;
    std::string message;
    grpc::StatusCode code = grpc::StatusCode::INVALID_ARGUMENT;
  };
  const auto replace = [](const std::string& type, const std::vector<int64_t>& shape, const std::string& raw) {
    return [=](Request* request) {
      request->Clear();
      AddRaw("images", type, shape, raw, request);
    };
  };
  const auto value_at = [](size_t at, float value) {
    return [=](Request* request) {
      std::vector<float> image(kImageValues);
      image[at] = value;
      request->set_raw_input_contents(0, RawBytes(image));
    };
  };
  const std::string image(kImageValues * sizeof(float), '\0');
  const std::string wrong_shape = "tensor \"images\" has the shape ";
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<Bad> cases = {
      {"nothing", [](Request* r) { r->Clear(); }, "tensor \"images\" is missing"},
      {"no image", replace("FP32", {0, 16, 16, 3}, ""), wrong_shape + "[0,16,16,3]; use [n,16,16,3]"},
      {"negative", replace("FP32", {-1, 16, 16, 3}, image), wrong_shape + "[-1,16,16,3]; no dimension may be negative"},
      {"no batch", replace("FP32", {16, 16, 3}, image), wrong_shape + "[16,16,3]; use [n,16,16,3]"},
      {"channels first", replace("FP32", {1, 3, 16, 16}, image), wrong_shape + "[1,3,16,16]; use [n,16,16,3]"},
      {"other size", replace("UINT8", {1, 17, 16, 3}, std::string(816, 'x')), wrong_shape + "[1,17,16,3]; use [n"},
      {"gray", replace("UINT8", {1, 16, 16, 1}, std::string(256, 'x')), wrong_shape + "[1,16,16,1]; use [n"},
      {"too short", replace("FP32", kOneImage, image.substr(4)), "tensor \"images\" has the shape [1,16,16,3] of FP32"},
      {"bytes as floats", replace("FP32", kOneImage, std::string(kImageValues, 'x')),
       "tensor \"images\" has the shape"},
      {"FP64", replace("FP64", kOneImage, image + image), "tensor \"images\" has the datatype FP64; use FP32 or UINT8"},
      {"FP16", replace("FP16", kOneImage, image.substr(image.size() / 2)), "tensor \"images\" has the datatype FP16"},
      {"BYTES", replace("BYTES", {1}, RawTexts({"JPEG"})), "tensor \"images\" has the datatype BYTES; use FP32"},
      {"NaN", value_at(5, nan), "tensor \"images\" has a value outside -1 to 1 (element 5); send bytes as UINT8"},
      {"infinite", value_at(0, std::numeric_limits<float>::infinity()),
       "tensor \"images\" has a value outside -1 to 1"},
      {"0 to 255", value_at(767, 255.0f), "tensor \"images\" has a value outside -1 to 1 (element 767)"},
      {"many", replace("UINT8", {101, 16, 16, 3}, std::string(101 * kImageValues, 'x')),
       "tensor \"images\" has 101 images, but only 100 requests may wait at this server; use at most that"},
      {"overflow", replace("UINT8", {int64_t{1} << 56, 16, 16, 3}, ""),
       wrong_shape + "[72057594037927936,16,16,3], more"},
      {"another name", [](Request* r) { r->mutable_inputs(0)->set_name("image"); },
       "tensor \"image\" is unknown; this model takes \"images\" alone"},
      {"another tensor", [](Request* r) { AddRaw("max_tokens", "INT32", {1}, RawBytes<int32_t>({1}), r); },
       "tensor \"max_tokens\" is unknown; this model takes \"images\" alone"},
      {"another output", [](Request* r) { r->add_outputs()->set_name("text_output"); },
       "output \"text_output\" is unknown; this model gives logits"},
      {"a parameter", [](Request* r) { (*r->mutable_parameters())["temperature"].set_double_param(1); },
       "parameter \"temperature\" is unknown to an image classifier"},
      {"priority", [](Request* r) { (*r->mutable_parameters())["priority"].set_int64_param(-1001); },
       "parameter \"priority\" is -1001; use -1,000 to 1,000"},
      {"another model", [](Request* r) { r->set_model_name("ears"); }, "model \"ears\" is not served here",
       grpc::StatusCode::NOT_FOUND},
      {"another version", [](Request* r) { r->set_model_version("2"); }, "version \"2\" is not served here",
       grpc::StatusCode::NOT_FOUND},
      {"text", [](Request* r) { *r = Hello(); }, "tensor \"text_input\" is for a language model",
       grpc::StatusCode::FAILED_PRECONDITION},
  };
  ImageServer server;
  for (const Bad& bad : cases) {
    SCOPED_TRACE(bad.name);
    Request request = Floats(RandomImages(1, 0));
    bad.spoil(&request);
    inference::ModelInferResponse response;
    const grpc::Status status = server.Infer(request, &response);
    EXPECT_EQ(status.error_code(), bad.code) << status.error_message();
    EXPECT_EQ(status.error_message().substr(0, bad.message.size()), bad.message);
    ASSERT_TRUE(server.Infer(Floats(RandomImages(1, 0)), &response).ok());
  }
  EXPECT_TRUE(server.BecomesIdle());
}

TEST(ImageServiceTest, TextIsAFailedPrecondition) {
  ImageServer server;
  v1::GenerateRequest generate;
  generate.set_text("hello");
  v1::GenerateResponse generated;
  v1::TokenizeRequest tokenize;
  v1::TokenizeResponse tokens;
  v1::DetokenizeRequest detokenize;
  v1::DetokenizeResponse detokenized;
  grpc::ClientContext contexts[4];
  v1::GenerateStreamResponse message;
  const auto stream = server.text->GenerateStream(&contexts[3], generate);
  EXPECT_FALSE(stream->Read(&message));
  for (const grpc::Status& status :
       {server.text->Generate(&contexts[0], generate, &generated),
        server.text->Tokenize(&contexts[1], tokenize, &tokens),
        server.text->Detokenize(&contexts[2], detokenize, &detokenized), stream->Finish()}) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    EXPECT_EQ(status.error_message().substr(0, 48), "this model classifies images and knows no text; ");
  }
}

TEST(ImageServiceTest, FactsNeedNoTokenizer) {
  ImageServer server;
  grpc::ClientContext contexts[2];
  v1::Model model;
  ASSERT_TRUE(server.text->GetModel(&contexts[0], {}, &model).ok());
  EXPECT_EQ(model.architecture(), "vmoe");
  EXPECT_EQ(model.bos_token_id(), -1);
  EXPECT_EQ(model.moe_layers_size(), 2);
  v1::Server facts;
  ASSERT_TRUE(server.text->GetServer(&contexts[1], {}, &facts).ok());
  EXPECT_EQ(facts.limits().max_num_seqs(), kPlaces);
}

TEST(ImageServiceTest, MetadataDescribesTheTensors) {
  ImageServer server;
  grpc::ClientContext context;
  inference::ModelMetadataResponse metadata;
  ASSERT_TRUE(server.stub->ModelMetadata(&context, {}, &metadata).ok());
  ASSERT_EQ(metadata.inputs_size(), 1);
  EXPECT_EQ(metadata.platform(), "switchyard_vmoe");
  EXPECT_EQ(metadata.inputs(0).ShortDebugString(),
            "name: \"images\" datatype: \"FP32\" shape: -1 shape: 16 shape: 16 shape: 3");
  EXPECT_EQ(metadata.outputs(0).ShortDebugString(), "name: \"logits\" datatype: \"FP32\" shape: -1 shape: 7");
}

TEST(ImageServiceTest, DeadlinesCancelsAndFullQueues) {
  ImageServer server(/*max_queued=*/4);
  server.engine.hangs = true;
  // The first is in the step, the others begin to fill the queue.
  std::vector<std::thread> clients;
  std::atomic<int> num_ok{0};
  for (int i = 0; i < kPlaces; ++i) {
    clients.emplace_back([&] {
      inference::ModelInferResponse response;
      num_ok += server.Infer(Floats(RandomImages(1, 1)), &response).ok();
    });
    server.AwaitStep();
  }
  while (server.metrics.open_calls() < kPlaces) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  inference::ModelInferResponse response;
  EXPECT_EQ(server.Infer(Floats(RandomImages(2, 1)), &response, std::chrono::milliseconds(150)).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  grpc::ClientContext context;
  const auto stream = server.stub->ModelStreamInfer(&context);
  ASSERT_TRUE(stream->Write(Floats(RandomImages(2, 1))));
  inference::ModelInferRequest timed = Floats(RandomImages(4, 1));
  ASSERT_TRUE(stream->Write(timed));
  inference::ModelStreamInferResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  EXPECT_EQ(answer.infer_response().parameters().at("status_code").string_param(), "RESOURCE_EXHAUSTED");
  EXPECT_EQ(answer.error_message().substr(0, 25), "the request queue is full");
  context.TryCancel();
  while (stream->Read(&answer)) {  // the other refusal may be here already
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  server.engine.hangs = false;
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(num_ok, kPlaces) << "those that ran beside them are answered";
  EXPECT_TRUE(server.BecomesIdle());
}

TEST(ImageServiceTest, ADrainFinishesWhatRunsAndAHangingEngineIsUnavailable) {
  for (const bool hangs : {false, true}) {
    ImageServer server;
    server.engine.step_millis = 100;
    server.engine.hangs = hangs;
    grpc::Status status;
    std::thread client([&] {
      inference::ModelInferResponse response;
      status = server.Infer(Floats(RandomImages(5, 1)), &response);
    });
    server.AwaitStep();
    EXPECT_EQ(server.Drain(std::chrono::milliseconds(hangs ? 100 : 60'000)), !hangs);
    client.join();
    EXPECT_EQ(status.error_code(), hangs ? grpc::StatusCode::UNAVAILABLE : grpc::StatusCode::OK);
    server.engine.hangs = false;
  }
}

}  // namespace
}  // namespace switchyard::kserve
