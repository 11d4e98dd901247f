// The program as a user meets it: arguments in; output, errors and exit code out.
#include "client/commands/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "tests/client/fake_server.h"
#include "tests/support/temp_folder.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

class CommandLineTest : public ::testing::Test {
 protected:
  // Runs `switchyard ARGUMENTS --address FAKE`; returns the exit code.
  int Run(std::vector<std::string> arguments, const std::string& input = "") {
    arguments.push_back("--address=" + server_.address());
    std::istringstream in(input);
    std::ostringstream out, err;
    Console console{.in = in, .out = out, .err = err, .terminal = {}};
    const int exit_code = RunCommandLine(arguments, console);
    out_ = out.str();
    err_ = err.str();
    return exit_code;
  }

  FakeServer server_;
  std::string out_, err_;
};

TEST_F(CommandLineTest, GenerateStreamsText) {
  EXPECT_EQ(Run({"generate", "Once", "upon", "--max-tokens", "4"}), kExitOk);
  EXPECT_EQ(out_, " t0 t1 t2 t3\n");
  EXPECT_THAT(err_, IsEmpty());
  EXPECT_EQ(server_.last_request().text(), "Once upon");
}

TEST_F(CommandLineTest, ChatSendsTheWholeConversationEachTurn) {
  server_.model.set_has_chat_template(true);
  EXPECT_EQ(Run({"chat", "--system", "Be brief.", "--max-tokens=2", "--template-kwargs={\"a\": 1}"},
                "Hi\n\nAgain\n"),
            kExitOk)
      << err_;
  EXPECT_EQ(out_, " t0 t1\n t0 t1\n");
  const v1::ChatPrompt chat = server_.last_request().chat();
  std::string shown;
  for (const v1::ChatMessage& message : chat.messages()) shown += message.role() + ":" + message.content() + "|";
  EXPECT_EQ(shown, "system:Be brief.|user:Hi|assistant: t0 t1|user:Again|");
  EXPECT_EQ(chat.template_kwargs(), "{\"a\": 1}");
  EXPECT_EQ(server_.last_request().max_tokens(), 2);
}

TEST_F(CommandLineTest, ChatAnswersOneMessage) {
  server_.model.set_has_chat_template(true);
  EXPECT_EQ(Run({"chat", "--max-tokens=1", "How", "are", "you?"}), kExitOk);
  EXPECT_EQ(out_, " t0\n");
  ASSERT_EQ(server_.last_request().chat().messages_size(), 1);
  EXPECT_EQ(server_.last_request().chat().messages(0).content(), "How are you?");
}

TEST_F(CommandLineTest, ChatNeedsATemplate) {
  EXPECT_EQ(Run({"chat", "hello"}), kExitError);
  EXPECT_THAT(err_, HasSubstr("the served model has no chat template; use `switchyard generate`"));
  EXPECT_EQ(server_.num_generate_calls(), 0);
}

TEST_F(CommandLineTest, GenerateReadsStandardInputAndEchoes) {
  EXPECT_EQ(Run({"generate", "-", "--echo", "--max-tokens=1"}, "two\nlines"), kExitOk);
  EXPECT_EQ(server_.last_request().text(), "two\nlines");
  EXPECT_EQ(out_, "two\nlines t0\n");
}

TEST_F(CommandLineTest, OptionsNotGivenStayAbsent) {
  EXPECT_EQ(Run({"generate", "x"}), kExitOk);
  v1::GenerateRequest expected;
  expected.set_text("x");
  EXPECT_EQ(server_.last_request().DebugString(), expected.DebugString());
}

TEST_F(CommandLineTest, EveryOptionReachesTheRequest) {
  EXPECT_EQ(Run({"generate",
                 "--token-ids",
                 "5,6",
                 "--model=m",
                 "--request-id=r",
                 "--max-tokens=2",
                 "--min-tokens=1",
                 "--temperature=0.5",
                 "--top-p=0.9",
                 "--top-k=40",
                 "--min-p=0.1",
                 "--repetition-penalty=1.1",
                 "--presence-penalty=0.2",
                 "--frequency-penalty=0.3",
                 "--seed=18446744073709551615",
                 "--n=2",
                 "--logprobs=3",
                 "--priority=-4",
                 "--stop",
                 "a",
                 "--stop",
                 "b",
                 "--stop-token-ids=7,8",
                 "--logit-bias",
                 "9=-2.5",
                 "--logit-bias=10=1",
                 "--ignore-eos",
                 "--include-stop",
                 "--keep-special-tokens",
                 "--allow-special-tokens",
                 "--no-add-special-tokens",
                 "--no-prefix-reuse",
                 "--explain"}),
            kExitOk)
      << err_;
  const v1::GenerateRequest request = server_.last_request();
  EXPECT_THAT(request.token_ids().ids(), ElementsAre(5, 6));
  EXPECT_EQ(request.model(), "m");
  EXPECT_EQ(request.request_id(), "r");
  EXPECT_EQ(request.max_tokens(), 2);
  EXPECT_EQ(request.min_tokens(), 1);
  EXPECT_FLOAT_EQ(request.temperature(), 0.5f);
  EXPECT_FLOAT_EQ(request.top_p(), 0.9f);
  EXPECT_EQ(request.top_k(), 40);
  EXPECT_FLOAT_EQ(request.min_p(), 0.1f);
  EXPECT_FLOAT_EQ(request.repetition_penalty(), 1.1f);
  EXPECT_FLOAT_EQ(request.presence_penalty(), 0.2f);
  EXPECT_FLOAT_EQ(request.frequency_penalty(), 0.3f);
  EXPECT_EQ(request.seed(), 18446744073709551615u);
  EXPECT_EQ(request.n(), 2);
  EXPECT_EQ(request.logprobs(), 3);
  EXPECT_EQ(request.priority(), -4);
  EXPECT_THAT(request.stop(), ElementsAre("a", "b"));
  EXPECT_THAT(request.stop_token_ids(), ElementsAre(7, 8));
  EXPECT_FLOAT_EQ(request.logit_bias().at(9), -2.5f);
  EXPECT_FLOAT_EQ(request.logit_bias().at(10), 1.0f);
  EXPECT_TRUE(request.ignore_eos() && request.include_stop() && request.allow_special_tokens());
  EXPECT_TRUE(request.has_skip_special_tokens() && !request.skip_special_tokens());
  EXPECT_TRUE(request.has_add_special_tokens() && !request.add_special_tokens());
  EXPECT_TRUE(request.has_allow_prefix_reuse() && !request.allow_prefix_reuse());
  EXPECT_TRUE(request.explain().enabled());
}

TEST_F(CommandLineTest, StopTakesOneTextAndLeavesThePrompt) {
  EXPECT_EQ(Run({"generate", "--stop", "a", "the", "prompt"}), kExitOk) << err_;
  EXPECT_EQ(server_.last_request().text(), "the prompt");
}

TEST_F(CommandLineTest, ExplainMarksTokensAndListsExperts) {
  EXPECT_EQ(Run({"generate", "x", "--explain", "--max-tokens=2"}), kExitOk);
  EXPECT_EQ(out_, R"([0] t0[1] t1

2 tokens, each through 2 of 4 experts per layer
layer    expert  tokens   share  weight
    1         1       2  100.0%   0.500  ████████████████████████
              0       1   50.0%   0.750  ████████████
              2       1   50.0%   0.250  ████████████
    3         1       2  100.0%   0.500  ████████████████████████
              0       1   50.0%   0.750  ████████████
              2       1   50.0%   0.250  ████████████
)");
}

TEST_F(CommandLineTest, ExplainLayerMustBeAMoeLayer) {
  EXPECT_EQ(Run({"generate", "x", "--explain", "--explain-layer=2"}), kExitError);
  EXPECT_THAT(err_, HasSubstr("--explain-layer is 2; the model's MoE layers are 1, 3"));
}

TEST_F(CommandLineTest, ColorAlwaysPaints) {
  EXPECT_EQ(Run({"generate", "x", "--explain", "--max-tokens=1", "--color=always"}), kExitOk);
  EXPECT_THAT(out_, StartsWith("\x1b[38;5;160m t0\x1b[0m\n"));
}

TEST_F(CommandLineTest, GenerateJsonIsOneObject) {
  EXPECT_EQ(Run({"generate", "x", "--json"}), kExitOk);
  EXPECT_EQ(nlohmann::json::parse(out_)["choices"][0]["finish_reason"], "FINISH_REASON_EOS");
}

TEST_F(CommandLineTest, StatsGoToTheStandardError) {
  EXPECT_EQ(Run({"generate", "x", "--stats", "--seed=42"}), kExitOk);
  EXPECT_THAT(err_, HasSubstr("3 new tokens"));
  EXPECT_THAT(err_, HasSubstr("LENGTH, seed 42"));
}

TEST_F(CommandLineTest, ServerErrorExitsWithOneAndKeepsThePartialText) {
  server_.on_generate = [](const auto&, auto*, auto* writer) {
    writer->Write(TokenMessage(0));
    return ErrorWithDetails(grpc::StatusCode::UNAVAILABLE, "the server drains", "DRAINING", 0, "", "");
  };
  EXPECT_EQ(Run({"generate", "x"}), kExitError);
  EXPECT_EQ(out_, " t0\n");
  EXPECT_EQ(err_, "switchyard: UNAVAILABLE: the server drains (DRAINING)\n");
}

TEST_F(CommandLineTest, TimeoutIsTheDeadline) {
  server_.on_generate = [](const auto&, grpc::ServerContext* context, auto*) {
    while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return grpc::Status::CANCELLED;
  };
  EXPECT_EQ(Run({"generate", "x", "--timeout=0.2"}), kExitError);
  EXPECT_THAT(err_, HasSubstr("DEADLINE_EXCEEDED"));
}

TEST_F(CommandLineTest, WrongArgumentsExitWithTwoAndSayWhat) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{}, "subcommand"},
      {{"nonsense"}, "nonsense"},
      {{"generate"}, "--token-ids"},
      {{"generate", "x", "--token-ids=1"}, "either words"},
      {{"generate", "x", "--no-such-option"}, "--no-such-option"},
      {{"generate", "x", "--max-tokens=many"}, "many"},
      {{"generate", "x", "--logit-bias=7"}, "7 is not ID=VALUE"},
      {{"generate", "x", "--timeout=-1"}, "-1"},
      {{"generate", "x", "--color=pink"}, "pink"},
      {{"abort"}, "request_id"},
      {{"bench", "--request-rate=0"}, "0 is not inf"},
      {{"bench", "--goodput", "speed:3"}, "speed:3"},
      {{"bench", "--num-prompts=0"}, "--num-prompts"},
      {{"experts", "--interval=0"}, "--interval"},
      {{"experts", "--metric=joy"}, "joy"},
  };
  for (const auto& [arguments, expected] : cases) {
    EXPECT_EQ(Run(arguments), kExitUsage) << expected;
    EXPECT_THAT(err_, HasSubstr(expected));
  }
}

TEST_F(CommandLineTest, HelpExitsWithZero) {
  EXPECT_EQ(Run({"--help"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("generate"));
  EXPECT_EQ(Run({"bench", "--help"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("--request-rate"));
}

TEST_F(CommandLineTest, HealthExitCodeFollowsTheServer) {
  EXPECT_EQ(Run({"health"}), kExitOk);
  EXPECT_EQ(out_, "SERVING\n");
  server_.SetServing(false);
  EXPECT_EQ(Run({"health"}), kExitError);
  EXPECT_EQ(out_, "NOT_SERVING\n");
  // On a busy machine the first answer may come after the first of these times.
  std::string said;
  for (const auto& [flag, time] : {std::pair("--wait=0.3", "300ms"), {"--wait=3", "3s"}, {"--wait=30", "30s"}}) {
    EXPECT_EQ(Run({"health", flag}), kExitError);
    said = std::string("not SERVING within ") + time + "; last answer: NOT_SERVING";
    if (err_.find(said) != std::string::npos) break;
  }
  EXPECT_THAT(err_, HasSubstr(said));
  EXPECT_EQ(Run({"health", "--service=no.such.Service"}), kExitError);
  EXPECT_THAT(err_, HasSubstr("NOT_FOUND"));
}

TEST_F(CommandLineTest, FactsAsLinesAndAsJson) {
  EXPECT_EQ(Run({"model"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("MoE layers               1, 3\n"));
  EXPECT_EQ(Run({"model", "--json"}), kExitOk);
  EXPECT_EQ(nlohmann::json::parse(out_)["num_experts"], 4);
  EXPECT_EQ(Run({"server"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("version                  1.2.3\n"));
  EXPECT_EQ(Run({"load"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("running requests         5\n"));
}

TEST_F(CommandLineTest, TokensThereAndBack) {
  EXPECT_EQ(Run({"tokenize", "AB"}), kExitOk);
  EXPECT_EQ(out_, "65 66\n");
  EXPECT_EQ(Run({"tokenize", "--pieces", "A"}), kExitOk);
  EXPECT_EQ(out_, "      65  \" t65\"\n");
  EXPECT_EQ(Run({"detokenize", "65", "66"}), kExitOk);
  EXPECT_EQ(out_, " t65 t66\n");
}

TEST_F(CommandLineTest, AbortSaysWhetherItFoundTheRequest) {
  EXPECT_EQ(Run({"abort", "known"}), kExitOk);
  EXPECT_EQ(Run({"abort", "other"}), kExitError);
  EXPECT_THAT(err_, HasSubstr("no request other"));
}

class ExpertsCommandTest : public CommandLineTest {
 protected:
  void SetUp() override {
    server_.expert_load.set_num_experts(2);
    server_.expert_load.set_top_k(1);
    server_.expert_load.set_num_tokens(80);
    server_.expert_load.set_num_steps(10);
    server_.expert_load.mutable_period()->set_seconds(4);
    v1::LayerExpertLoad* layer = server_.expert_load.add_layers();
    layer->set_layer(1);
    layer->add_tokens_per_expert(60);
    layer->add_tokens_per_expert(20);
    layer->add_seconds_per_expert(0.006);
    layer->add_seconds_per_expert(0.002);
  }
};

TEST_F(ExpertsCommandTest, OncePrintsTheMapWithoutCursorTricks) {
  EXPECT_EQ(Run({"experts", "--once"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("20.0 tokens/s, 2.5 steps/s, top 1 of 2 experts, since the start, 4.0 s"));
  EXPECT_THAT(out_, HasSubstr("    1  ▆ 75%  ▂ 25%        1.50     2/2"));
  EXPECT_THAT(out_, HasSubstr("layer 1 expert 0                   60   75.0%       1.50         100.0"));
  EXPECT_THAT(out_, Not(HasSubstr("\x1b")));
}

TEST_F(ExpertsCommandTest, LiveShowsWhatWasAddedSinceThePreviousFrame) {
  EXPECT_EQ(Run({"experts", "--interval=0.1"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("▆ 75%  ▂ 25%"));
  EXPECT_THAT(out_, HasSubstr("last 1.0 s"));
  EXPECT_THAT(out_, HasSubstr("▄ 50%  ▄ 50%"));
}

TEST_F(ExpertsCommandTest, JsonPrintsALinePerSnapshot) {
  EXPECT_EQ(Run({"experts", "--json"}), kExitOk);
  std::istringstream lines(out_);
  int num_lines = 0;
  for (std::string line; std::getline(lines, line); ++num_lines) EXPECT_TRUE(nlohmann::json::accept(line)) << line;
  EXPECT_EQ(num_lines, 2);
}

TEST_F(ExpertsCommandTest, ErrorsSurface) {
  server_.error = grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "layers: 7 is no MoE layer");
  EXPECT_EQ(Run({"experts", "--once", "--layers=7"}), kExitError);
  EXPECT_THAT(err_, HasSubstr("7 is no MoE layer"));
}

TEST_F(CommandLineTest, BenchPrintsATableAndWritesJson) {
  const testing::TempFolder folder;
  const std::string path = folder.PathOf("bench.json");
  EXPECT_EQ(Run({"bench", "--num-prompts=8", "--input-len=4", "--output-len=6", "--max-concurrency=2", "--warmup=2",
                 "--goodput", "e2el:60000", "--output-json", path}),
            kExitOk)
      << err_;
  EXPECT_EQ(server_.num_generate_calls(), 10);
  EXPECT_THAT(out_, HasSubstr("requests completed                              8\n"));
  std::ifstream file(path);
  const auto json = nlohmann::json::parse(file);
  EXPECT_EQ(json["completed"], 8);
  EXPECT_EQ(json["total_input_tokens"], 32);
  EXPECT_EQ(json["total_output_tokens"], 48);
  EXPECT_EQ(json["request_goodput"], json["request_throughput"]);
}

TEST_F(CommandLineTest, BenchReadsPromptsFromAFile) {
  const testing::TempFolder folder;
  const std::string path = folder.PathOf("prompts.txt");
  std::ofstream(path) << "only line\n\n";
  EXPECT_EQ(Run({"bench", "--num-prompts=2", "--warmup=0", "--dataset", path}), kExitOk) << err_;
  EXPECT_EQ(server_.last_request().text(), "only line");
  EXPECT_THAT(out_, HasSubstr("input tokens                                   14\n")) << "as the server counts";
  EXPECT_EQ(Run({"bench", "--dataset=/nowhere"}), kExitError);
  EXPECT_THAT(err_, HasSubstr("/nowhere"));
}

TEST_F(CommandLineTest, BenchFailsWhenRequestsFail) {
  server_.on_generate = [](const auto&, auto*, auto*) {
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "the queue is full");
  };
  EXPECT_EQ(Run({"bench", "--num-prompts=3", "--warmup=0"}), kExitError);
  EXPECT_THAT(out_, HasSubstr("! 3 failed, the first: RESOURCE_EXHAUSTED: the queue is full"));
}

}  // namespace
}  // namespace switchyard
