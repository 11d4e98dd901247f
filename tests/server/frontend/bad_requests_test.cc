// Malformed and hostile requests against a server in this process, as a table: each has one documented code and
// message, none is INTERNAL, UNKNOWN or UNIMPLEMENTED, and after each the server serves a good request.
//
// R1 to R10 in the names are the rows of the fault model: R1 empty prompts, R2 long ones, R3 numbers, R4 counts, R5
// stop strings, R6 token ids, R7 UTF-8, R8 model names, R9 metadata, R10 bytes that are no message.
#include <gtest/gtest.h>

#include <cfloat>
#include <chrono>
#include <climits>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <set>

#include "server/frontend/request_validation.h"
#include "tests/server/frontend/raw_call.h"
#include "tests/server/frontend/test_server.h"

namespace switchyard {
namespace {

constexpr char kInference[] = "/switchyard.v1.InferenceService/";
constexpr char kExpert[] = "/switchyard.v1.ExpertService/";

struct BadRequest {
  std::string name;
  std::string method;
  std::string bytes;
  grpc::StatusCode code;
  std::string message;  // how it begins; "" for answers that gRPC itself gives
};

class Table {
 public:
  // For both generating methods.
  void Add(const std::string& name, const std::function<void(v1::GenerateRequest*)>& spoil, const std::string& message,
           grpc::StatusCode code = grpc::StatusCode::INVALID_ARGUMENT) {
    v1::GenerateRequest request;
    request.set_text("hello");
    spoil(&request);
    AddBytes(name, request.SerializePartialAsString(), message, code);
  }

  void AddBytes(const std::string& name, const std::string& bytes, const std::string& message,
                grpc::StatusCode code = grpc::StatusCode::INVALID_ARGUMENT) {
    // Streaming and unary share all checks; each is asked every other time.
    const bool streaming = cases.size() % 2 == 0;
    cases.push_back(
        {name, std::string(kInference) + (streaming ? "GenerateStream" : "Generate"), bytes, code, message});
  }

  void AddFor(const std::string& method, const std::string& name, const std::string& bytes, const std::string& message,
              grpc::StatusCode code = grpc::StatusCode::INVALID_ARGUMENT) {
    cases.push_back({name, method, bytes, code, message});
  }

  std::vector<BadRequest> cases;
};

void AddPrompts(Table* table) {
  table->Add(
      "R1 no prompt", [](auto* r) { r->clear_text(); }, "prompt is empty; give text, token_ids or chat");
  table->Add(
      "R1 empty text", [](auto* r) { r->set_text(""); }, "prompt is empty; give text, token_ids or chat");
  table->Add(
      "R1 no token ids", [](auto* r) { r->mutable_token_ids(); }, "prompt is empty; give text, token_ids or chat");
  table->Add(
      "R1 no messages", [](auto* r) { r->mutable_chat(); }, "chat.messages is empty; give at least one");
  table->Add(
      "R1 no role", [](auto* r) { r->mutable_chat()->add_messages(); },
      "chat.messages[0].role has 0 bytes; use 1 to 64");
  table->Add(
      "R2 long message",
      [](auto* r) {
        r->mutable_chat()->add_messages()->set_role("user");
        r->mutable_chat()->mutable_messages(0)->set_content(std::string(20'000, 'a'));
      },
      "chat has 20,014 bytes; this server accepts at most 16,384, 16 for each token of context");
  table->Add(
      "R4 many messages",
      [](auto* r) {
        for (int i = 0; i < 1025; ++i) r->mutable_chat()->add_messages()->set_role("user");
      },
      "chat.messages has 1,025 entries; use at most 1,024");
  table->Add(
      "R1 chat without a template", [](auto* r) { r->mutable_chat()->add_messages()->set_role("user"); },
      "this model has no chat template", grpc::StatusCode::FAILED_PRECONDITION);
  for (size_t size : {16'385u, 100'000u, 4'000'000u}) {
    table->Add(
        "R2 one character " + std::to_string(size), [=](auto* r) { r->set_text(std::string(size, 'a')); },
        "prompt has " + WithCommas(static_cast<int64_t>(size)) + " bytes; this server accepts at most 16,384");
  }
  table->Add(
      "R2 a million emoji",
      [](auto* r) {
        std::string text;
        for (int i = 0; i < 1'000'000; ++i) text += "\xF0\x9F\x98\x80";
        r->set_text(text);
      },
      "prompt has 4,000,000 bytes; this server accepts at most 16,384");
  for (int size : {1024, 1500, 5000, 16'384}) {
    table->Add(
        "R2 tokens " + std::to_string(size), [=](auto* r) { r->set_text(std::string(static_cast<size_t>(size), 'x')); },
        "prompt has " + WithCommas(size) + " tokens; this server accepts at most 1,024 including max_tokens");
  }
  for (int size : {1024, 1025, 100'000}) {
    table->Add(
        "R2 token ids " + std::to_string(size),
        [=](auto* r) {
          for (int i = 0; i < size; ++i) r->mutable_token_ids()->add_ids(5);
        },
        "prompt has " + WithCommas(size) + " tokens; this server accepts at most 1,024 including max_tokens");
  }
  for (int max_tokens : {1020, 1023, 1024}) {
    table->Add(
        "R2 prompt and max_tokens " + std::to_string(max_tokens), [=](auto* r) { r->set_max_tokens(max_tokens); },
        "max_tokens is " + std::to_string(max_tokens) +
            ", but prompt 5 + max_tokens exceed the model's 1024; use at most 1019");
  }
  for (int32_t id : {-1, 257, 258, 65'536, INT_MAX, INT_MIN}) {
    for (int position : {0, 3}) {
      table->Add(
          "R6 token id " + std::to_string(id) + " at " + std::to_string(position),
          [=](auto* r) {
            for (int i = 0; i < position; ++i) r->mutable_token_ids()->add_ids(i);
            r->mutable_token_ids()->add_ids(id);
          },
          "token_ids.ids[" + std::to_string(position) + "] is token " + std::to_string(id) +
              ", but this model has tokens 0 to 256");
    }
  }
}

void AddFloats(Table* table) {
  struct Field {
    std::string name;
    void (v1::GenerateRequest::*set)(float);
    float low, high;
    bool low_excluded;
    std::string advice;
  };
  const std::vector<Field> fields = {
      {"temperature", &v1::GenerateRequest::set_temperature, 0, 2, false, "use a value from 0 to 2"},
      {"top_p", &v1::GenerateRequest::set_top_p, 0, 1, true, "use a value above 0, at most 1"},
      {"min_p", &v1::GenerateRequest::set_min_p, 0, 1, false, "use a value from 0 to 1"},
      {"repetition_penalty", &v1::GenerateRequest::set_repetition_penalty, 0.01f, 10, false,
       "use a value from 0.01 to 10"},
      {"presence_penalty", &v1::GenerateRequest::set_presence_penalty, -2, 2, false, "use a value from -2 to 2"},
      {"frequency_penalty", &v1::GenerateRequest::set_frequency_penalty, -2, 2, false, "use a value from -2 to 2"},
  };
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float denormal = std::numeric_limits<float>::denorm_min();
  for (const Field& field : fields) {
    const auto add = [&](float value, const std::string& what) {
      table->Add(
          "R3 " + field.name + " " + what, [&](auto* r) { (r->*field.set)(value); },
          field.name + " is " + what + "; " + field.advice);
    };
    for (float value : {nan, -nan, inf, -inf}) add(value, "not a finite number");
    for (float value : {denormal, -denormal, FLT_MIN / 2}) add(value, "a denormal number");
    const auto shown = [](float value) {
      char text[32];
      std::snprintf(text, sizeof(text), "%g", static_cast<double>(value));
      return std::string(text);
    };
    for (float value : {1e38f, -1e38f, FLT_MAX, -FLT_MAX, field.high * 1.001f, field.high + 1, field.low - 0.001f}) {
      add(value, shown(value));
    }
    if (field.low_excluded) {
      add(0.0f, "0");
      add(-0.0f, "-0");
    }
  }
  for (float value : {1e-4f, 1e-10f, 1e-37f}) {
    table->Add(
        "R3 temperature tiny", [=](auto* r) { r->set_temperature(value); }, "temperature is ");
  }
}

void AddIntegers(Table* table) {
  struct Field {
    std::string name;
    void (v1::GenerateRequest::*set)(int32_t);
    int64_t low, high;
  };
  const std::vector<Field> fields = {
      {"max_tokens", &v1::GenerateRequest::set_max_tokens, 1, 1024},
      {"min_tokens", &v1::GenerateRequest::set_min_tokens, 0, 1024},
      {"top_k", &v1::GenerateRequest::set_top_k, 0, 1'000'000},
      {"n", &v1::GenerateRequest::set_n, 1, 16},
      {"logprobs", &v1::GenerateRequest::set_logprobs, 0, 20},
      {"priority", &v1::GenerateRequest::set_priority, -1000, 1000},
  };
  for (const Field& field : fields) {
    for (int64_t value : {int64_t{INT_MIN}, int64_t{INT_MIN} + 1, field.low - 1, field.high + 1, int64_t{INT_MAX} - 1,
                          int64_t{INT_MAX}}) {
      table->Add(
          "R3 " + field.name + " " + std::to_string(value),
          [&](auto* r) { (r->*field.set)(static_cast<int32_t>(value)); },
          field.name + " is " + std::to_string(value) + "; use a whole number from " + WithCommas(field.low) + " to " +
              WithCommas(field.high));
    }
  }
  table->Add(
      "R4 min above max",
      [](auto* r) {
        r->set_max_tokens(5);
        r->set_min_tokens(6);
      },
      "min_tokens is 6, but max_tokens is 5; use at most max_tokens");
  table->Add(
      "R4 min does not fit", [](auto* r) { r->set_min_tokens(1020); },
      "min_tokens is 1020, but only 1019 tokens fit after the prompt");
}

void AddLists(Table* table) {
  for (const auto& [value, what] :
       std::vector<std::pair<float, std::string>>{{NAN, "not a finite number"},
                                                  {INFINITY, "not a finite number"},
                                                  {-INFINITY, "not a finite number"},
                                                  {std::numeric_limits<float>::denorm_min(), "a denormal number"},
                                                  {100.5f, "100.5"},
                                                  {-1e38f, "-1e+38"}}) {
    table->Add(
        "R4 logit_bias " + what, [v = value](auto* r) { (*r->mutable_logit_bias())[7] = v; },
        "logit_bias[7] is " + what + "; use a value from -100 to 100");
  }
  for (int32_t id : {-1, 257, INT_MIN, INT_MAX}) {
    table->Add(
        "R4 logit_bias token " + std::to_string(id), [=](auto* r) { (*r->mutable_logit_bias())[id] = 1.0f; },
        "logit_bias[" + std::to_string(id) + "] is token " + std::to_string(id) +
            ", but this model has tokens 0 to 256");
    table->Add(
        "R4 stop token " + std::to_string(id), [=](auto* r) { r->add_stop_token_ids(id); },
        "stop_token_ids[0] is token " + std::to_string(id) + ", but this model has tokens 0 to 256");
  }
  table->Add(
      "R4 logit_bias entries",
      [](auto* r) {
        for (int i = 0; i < 1025; ++i) (*r->mutable_logit_bias())[i] = 1.0f;
      },
      "logit_bias has 1,025 entries; use at most 1,024");
  table->Add(
      "R4 stop token ids",
      [](auto* r) {
        for (int i = 0; i < 65; ++i) r->add_stop_token_ids(i);
      },
      "stop_token_ids has 65 entries; use at most 64");
  for (int count : {17, 1000, 60'000, 100'000}) {
    table->Add(
        "R4 stop strings " + std::to_string(count),
        [=](auto* r) {
          for (int i = 0; i < count; ++i) r->add_stop("x");
        },
        count > 65536 ? "the request has more than 65536 texts, parts and unknown fields"
                      : "stop has " + WithCommas(count) + " strings; use at most 16");
  }
  for (size_t size : {257u, 10'000u, 1'000'000u}) {
    table->Add(
        "R5 long stop " + std::to_string(size), [=](auto* r) { r->add_stop(std::string(size, 's')); },
        "stop[0] has " + WithCommas(static_cast<int64_t>(size)) + " bytes; use 1 to 256 bytes");
  }
  for (int position : {0, 1, 15}) {
    table->Add(
        "R5 empty stop at " + std::to_string(position),
        [=](auto* r) {
          for (int i = 0; i < position; ++i) r->add_stop("x");
          r->add_stop("");
        },
        "stop[" + std::to_string(position) + "] is empty; use 1 to 256 bytes");
  }
  for (int32_t layer : {-1, 0, 3, INT_MAX, INT_MIN}) {
    table->Add(
        "R4 explain layer " + std::to_string(layer),
        [=](auto* r) {
          r->mutable_explain()->set_enabled(true);
          r->mutable_explain()->add_layers(layer);
        },
        "explain.layers[0] is layer " + std::to_string(layer) + ", which is no MoE layer of this model");
  }
  table->Add(
      "several at once",
      [](auto* r) {
        r->set_text("");
        r->set_n(99);
        r->set_top_p(7);
      },
      "prompt is empty; give text, token_ids or chat (and 2 more, see the details)");
}

void AddNames(Table* table) {
  const std::vector<std::pair<std::string, std::string>> names = {
      {"other", "other"},
      {"TOY", "TOY"},
      {"toy ", "toy?"},
      {"../../etc/passwd", "../../etc/passwd"},
      {"%00", "?00"},
      {std::string("toy\0x", 5), "toy?x"},
      {"a\r\nb", "a??b"},
      {"\x1b[31mred", "??31mred"},
      {"<script>", "?script?"},
      {"\xE2\x82\xAC", "???"},
      {std::string(1'000'000, 'm'), std::string(64, 'm') + "..."}};
  for (const auto& [name, shown] : names) {
    table->Add(
        "R8 model " + shown.substr(0, 20), [n = name](auto* r) { r->set_model(n); },
        "model \"" + shown + "\" is not served here; this server has \"toy\"", grpc::StatusCode::NOT_FOUND);
  }
  for (const std::string& id :
       {std::string(129, 'x'), std::string(1'000'000, 'x'), std::string("a b"), std::string("a/b"), std::string("a\nb"),
        std::string("\0", 1), std::string("caf\xC3\xA9"), std::string("{}"), std::string("'; drop"),
        std::string("a,b")}) {
    table->Add(
        "request_id of " + std::to_string(id.size()), [=](auto* r) { r->set_request_id(id); },
        "request_id has " + WithCommas(static_cast<int64_t>(id.size())) +
            " bytes or unusual characters; use at most 128");
  }
}

// A length-delimited field by hand: the generated setters would refuse some of these.
std::string Field(int number, const std::string& content) {
  std::string bytes;
  for (uint64_t varint : {static_cast<uint64_t>(number) << 3 | 2, static_cast<uint64_t>(content.size())}) {
    while (varint >= 0x80) {
      bytes += static_cast<char>(varint | 0x80);
      varint >>= 7;
    }
    bytes += static_cast<char>(varint);
  }
  return bytes + content;
}

void AddBrokenUtf8(Table* table) {
  const std::vector<std::string> broken = {"\x80",
                                           "\xBF",
                                           "\xC0\x80",
                                           "\xC1\xBF",
                                           "\xC3",
                                           "\xC3(",
                                           "\xE0\x80\x80",
                                           "\xE2\x82",
                                           "\xE2(\xA1",
                                           "\xED\xA0\x80",
                                           "\xED\xBF\xBF",
                                           "\xF0\x80\x80\x80",
                                           "\xF0\x9F\x98",
                                           "\xF4\x90\x80\x80",
                                           "\xF5\x80\x80\x80",
                                           "\xF8\x88\x80\x80\x80",
                                           "\xFE",
                                           "\xFF"};
  for (const std::string& bytes : broken) {
    for (size_t position : {0u, 17u}) {
      table->AddBytes("R7 prompt", Field(2, std::string(position, 'a') + bytes),
                      "prompt is not valid UTF-8 (byte " + std::to_string(position) + ")");
    }
    table->AddBytes("R7 stop", Field(2, "hello") + Field(15, "good") + Field(15, "ba" + bytes),
                    "stop is not valid UTF-8 (byte 2)");
  }
  table->AddBytes("R7 model", Field(1, "\xFF") + Field(2, "hello"), "model is not valid UTF-8 (byte 0)");
  table->AddBytes("R7 request_id", Field(2, "hello") + Field(4, "ab\xFF"), "request_id is not valid UTF-8 (byte 2)");
}

constexpr char kNoMessage[] = "the request is not a valid switchyard.v1.GenerateRequest message";

// Every prefix of a full request, and noise. What parses all the same is judged by its content.
void AddBrokenBytes(Table* table) {
  v1::GenerateRequest full;
  full.set_model("toy");
  full.set_text("hello");
  full.set_max_tokens(4);
  full.set_temperature(1);
  full.add_stop("end");
  full.add_stop_token_ids(3);
  (*full.mutable_logit_bias())[4] = 1;
  full.mutable_explain()->set_enabled(true);
  const std::string bytes = full.SerializeAsString();
  for (size_t size = 1; size < bytes.size(); ++size) {
    v1::GenerateRequest parsed;
    const std::string prefix = bytes.substr(0, size);
    if (!parsed.ParseFromString(prefix)) table->AddBytes("R10 cut after " + std::to_string(size), prefix, kNoMessage);
  }
  std::mt19937 random(1);
  for (int i = 0; i < 60; ++i) {
    std::string noise;
    for (size_t n = 1 + random() % 200; n > 0; --n) noise += static_cast<char>(random());
    v1::GenerateRequest parsed;
    if (!parsed.ParseFromString(noise)) table->AddBytes("R10 noise " + std::to_string(i), noise, "");
  }
  std::string deep;
  for (int i = 0; i < 200; ++i) deep += "\xE3\x07";  // group 124 starts
  for (int i = 0; i < 200; ++i) deep += "\xE4\x07";  // group 124 ends
  table->AddBytes("R10 200 groups deep", deep, kNoMessage);
  table->AddBytes("R10 open groups", deep.substr(0, 400), kNoMessage);
  table->AddBytes("R10 4 GiB length", std::string("\x12\xFF\xFF\xFF\xFF\x0F", 6), kNoMessage);
  table->AddBytes("R10 endless varint", "\x28" + std::string(20, '\xFF'), kNoMessage);
  table->AddBytes("R10 field number 0", std::string("\x02\x01", 2) + "a", kNoMessage);
  table->AddBytes("R10 wire type 7", "\x17", kNoMessage);
  table->AddBytes("R10 text as number", std::string("\x10\x05", 2), "prompt is empty; give text, token_ids or chat");
  table->AddBytes("R10 unknown fields only", Field(1000, "x") + Field(1001, std::string(1000, 'y')),
                  "prompt is empty; give text, token_ids or chat");
  table->AddBytes("R10 HTTP", "GET / HTTP/1.1\r\n\r\n", kNoMessage);
  table->AddBytes("R10 larger than a message may be", Field(2, std::string(9 << 20, 'a')),
                  "Received message larger than max", grpc::StatusCode::RESOURCE_EXHAUSTED);
}

void AddOtherMethods(Table* table) {
  const std::string inference = kInference;
  const std::string expert = kExpert;
  for (const std::string method : {"Tokenize", "Detokenize", "GetModel", "GetServer", "GetLoad", "Abort"}) {
    table->AddFor(inference + method, "R10 noise", "\xFF\xFF\xFF", "the request is not a valid switchyard.v1.");
    table->AddFor(inference + method, "R10 cut",
                  "\x0A\x05"
                  "ab",
                  "the request is not a valid switchyard.v1.");
  }
  for (const std::string method : {"GetExpertLoad", "WatchExpertLoad"}) {
    table->AddFor(expert + method, "R10 noise", "\xFF\xFF\xFF", "the request is not a valid switchyard.v1.");
    table->AddFor(expert + method, "R8 model", Field(1, "other"), "model \"other\" is not served here",
                  grpc::StatusCode::NOT_FOUND);
    table->AddFor(expert + method, "layer 0", std::string("\x10\x00", 2),
                  "layers[0] is layer 0, which is no MoE layer");
  }
  v1::WatchExpertLoadRequest watch;
  for (int64_t seconds : {int64_t{0}, int64_t{-1}, int64_t{3601}, std::numeric_limits<int64_t>::max(),
                          std::numeric_limits<int64_t>::min()}) {
    watch.mutable_interval()->set_seconds(seconds);
    table->AddFor(expert + "WatchExpertLoad", "interval", watch.SerializeAsString(),
                  "interval is out of range; use 0.05 s to 3,600 s");
  }
  table->AddFor(inference + "Tokenize", "R7", Field(2, "abc\xFF"), "prompt is not valid UTF-8 (byte 3)");
  table->AddFor(inference + "Tokenize", "R2", Field(2, std::string(20'000, 'a')),
                "text has 20,000 bytes; this server accepts at most 16,384");
  table->AddFor(inference + "Tokenize", "R8", Field(1, "x"), "model \"x\" is not served here",
                grpc::StatusCode::NOT_FOUND);
  for (int32_t id : {-1, 257, INT_MAX}) {
    v1::DetokenizeRequest request;
    request.add_token_ids(id);
    table->AddFor(inference + "Detokenize", "R6", request.SerializeAsString(),
                  "token_ids[0] is token " + std::to_string(id));
  }
  v1::DetokenizeRequest long_one;
  for (int i = 0; i < 1025; ++i) long_one.add_token_ids(5);
  table->AddFor(inference + "Detokenize", "R2", long_one.SerializeAsString(),
                "token_ids has 1,025 entries; use at most 1,024, the model's context");
  v1::GetExpertLoadRequest many_layers;
  for (int i = 0; i < 1'000'000; ++i) many_layers.add_layers(1);
  table->AddFor(expert + "GetExpertLoad", "a million layers", many_layers.SerializeAsString(),
                "layers has 1,000,000 entries; this model has 2 MoE layers");
  table->AddFor(inference + "Detokenize", "R8", Field(1, "x"), "model \"x\" is not served here",
                grpc::StatusCode::NOT_FOUND);
  table->AddFor(inference + "GetModel", "R8", Field(1, "x"), "model \"x\" is not served here",
                grpc::StatusCode::NOT_FOUND);
  table->AddFor(inference + "Abort", "no id", "", "request_id is empty, too long or has unusual characters");
  table->AddFor(inference + "Abort", "bad id", Field(1, "a b"),
                "request_id is empty, too long or has unusual characters");
  table->AddFor(inference + "Abort", "unknown id", Field(1, "nobody"), "no open call has that request_id",
                grpc::StatusCode::NOT_FOUND);
  table->AddFor("/grpc.health.v1.Health/Check", "unknown service", Field(1, "other"), "no service of that name",
                grpc::StatusCode::NOT_FOUND);
  table->AddFor("/grpc.health.v1.Health/Check", "R10", "\xFF", "the request is not a valid grpc.health.v1.");
  table->AddFor("/grpc.health.v1.Health/Watch", "R10", "\xFF", "the request is not a valid grpc.health.v1.");
}

Table AllBadRequests() {
  Table table;
  AddPrompts(&table);
  AddFloats(&table);
  AddIntegers(&table);
  AddLists(&table);
  AddNames(&table);
  AddBrokenUtf8(&table);
  AddBrokenBytes(&table);
  AddOtherMethods(&table);
  return table;
}

bool IsStreaming(const std::string& method) {
  return method.find("Stream") != std::string::npos || method.find("Watch") != std::string::npos;
}

void ExpectGoodService(TestServer* server) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  v1::GenerateRequest request;
  request.set_text("hi");
  request.set_max_tokens(2);
  v1::GenerateResponse response;
  const grpc::Status status = server->stub->Generate(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.choices(0).text(), "hi");
}

TEST(BadRequestsTest, EachHasItsAnswerAndHarmsNobody) {
  const Table table = AllBadRequests();
  ASSERT_GE(table.cases.size(), 300u);
  TestServer server;
  std::chrono::steady_clock::duration slowest{};
  for (const BadRequest& bad : table.cases) {
    SCOPED_TRACE(bad.method + ": " + bad.name);
    const auto start = std::chrono::steady_clock::now();
    const grpc::Status status = RawCall(server.channel.get(), bad.method, IsStreaming(bad.method), bad.bytes);
    slowest = std::max(slowest, std::chrono::steady_clock::now() - start);
    EXPECT_EQ(status.error_code(), bad.code) << status.error_message();
    EXPECT_EQ(status.error_message().substr(0, bad.message.size()), bad.message);
    EXPECT_LT(status.error_message().size(), 600u);
    ExpectGoodService(&server);
  }
  EXPECT_TRUE(server.BecomesIdle());
  const std::string metrics = server.metrics.Scrape();
  for (const std::string code : {"INTERNAL", "UNKNOWN", "UNIMPLEMENTED"}) {
    EXPECT_NE(metrics.find("switchyard_request_status_total{model_name=\"toy\",grpc_code=\"" + code + "\"} 0"),
              std::string::npos);
  }
  std::printf("%zu bad requests, slowest answer %.1f ms\n", table.cases.size(),
              std::chrono::duration<double, std::milli>(slowest).count());
}

TEST(BadRequestsTest, R9HostileMetadataIsNoInternalError) {
  TestServer server;
  const std::set<grpc::StatusCode> allowed = {grpc::StatusCode::OK, grpc::StatusCode::RESOURCE_EXHAUSTED,
                                              grpc::StatusCode::UNAVAILABLE, grpc::StatusCode::CANCELLED};
  v1::GenerateRequest good;
  good.set_text("hi");
  good.set_max_tokens(1);
  const auto call = [&](const std::function<void(grpc::ClientContext*)>& add) {
    // On a connection of its own: gRPC may close it, and that must harm nobody else.
    grpc::ChannelArguments own;
    own.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    const auto hostile = grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(server.frontend->port()),
                                                   grpc::InsecureChannelCredentials(), own);
    grpc::ClientContext context;
    add(&context);
    const grpc::Status status =
        RawCall(hostile.get(), std::string(kInference) + "Generate", false, good.SerializeAsString(), &context);
    EXPECT_TRUE(allowed.count(status.error_code()) > 0) << status.error_code() << " " << status.error_message();
    ExpectGoodService(&server);
  };
  call([](auto* c) { c->AddMetadata("big", std::string(1 << 20, 'x')); });
  call([](auto* c) {
    for (int i = 0; i < 2000; ++i) c->AddMetadata("key-" + std::to_string(i), "v");
  });
  call([](auto* c) { c->AddMetadata("noise-bin", std::string("\x00\xFF\x80", 3)); });
  call([](auto* c) { c->AddMetadata("x-request-id", std::string(5000, 'i')); });
  call([](auto* c) { c->AddMetadata("x-request-id", "a b/c"); });
}

// gRPC refuses it before any code of ours: it would inflate the message before it checks the size.
TEST(BadRequestsTest, CompressedMessagesAreUnimplemented) {
  TestServer server;
  v1::GenerateRequest request;
  request.set_text(std::string(500, 'a'));
  request.set_max_tokens(1);
  for (bool streaming : {true, false}) {
    grpc::ClientContext context;
    context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
    const grpc::Status status =
        RawCall(server.channel.get(), std::string(kInference) + (streaming ? "GenerateStream" : "Generate"), streaming,
                request.SerializeAsString(), &context);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED) << status.error_message();
    ExpectGoodService(&server);
  }
}

// Looks odd, is fine.
TEST(BadRequestsTest, UnusualRequestsAreServed) {
  TestServer server;
  const std::vector<std::pair<std::string, std::function<void(v1::GenerateRequest*)>>> cases = {
      {"R6 special token as text", [](auto* r) { r->set_text("</s>"); }},
      {"R7 NUL and controls", [](auto* r) { r->set_text(std::string("\0\x1b\x7f", 3)); }},
      {"R7 U+FFFE", [](auto* r) { r->set_text("\xEF\xBF\xBE"); }},
      {"R7 right-to-left mark",
       [](auto* r) {
         r->set_text(
             "\xE2\x80\xAE"
             "abc");
       }},
      {"R3 negative zero", [](auto* r) { r->set_temperature(-0.0f); }},
      {"R4 every limit",
       [](auto* r) {
         r->set_n(16);
         r->set_logprobs(20);
         r->set_max_tokens(3);
         for (int i = 0; i < 16; ++i) r->add_stop(std::string(256, static_cast<char>('A' + i)));
         for (int i = 0; i < 64; ++i) r->add_stop_token_ids(i + 128);
         for (int i = 0; i < 257; ++i) (*r->mutable_logit_bias())[i] = 100.0f;
       }},
      {"R2 the longest prompt", [](auto* r) { r->set_text(std::string(1023, 'a')); }},
      {"the longest output",
       [](auto* r) {
         r->set_text("a");
         r->set_max_tokens(1023);
       }},
      {"request_id of 128", [](auto* r) { r->set_request_id(std::string(128, 'x')); }},
  };
  for (const auto& [name, change] : cases) {
    SCOPED_TRACE(name);
    v1::GenerateRequest request;
    request.set_text("hello");
    request.set_max_tokens(1);
    change(&request);
    grpc::ClientContext context;
    v1::GenerateResponse response;
    const grpc::Status status = server.stub->Generate(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
  EXPECT_TRUE(server.BecomesIdle());
}

TEST(BadRequestsTest, R6SpecialTokensInTextArePlainTextUnlessAllowed) {
  TestServer server;
  for (bool allow : {false, true}) {
    v1::TokenizeRequest request;
    request.set_text("</s>");
    request.set_allow_special_tokens(allow);
    grpc::ClientContext context;
    v1::TokenizeResponse response;
    ASSERT_TRUE(server.stub->Tokenize(&context, request, &response).ok());
    EXPECT_EQ(response.token_ids_size(), allow ? 1 : 4);
  }
}

}  // namespace
}  // namespace switchyard
