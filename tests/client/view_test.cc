// What the terminal shows: text in, text out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "client/view/answer.h"
#include "client/view/expert_map.h"
#include "client/view/routing_tally.h"
#include "client/view/terminal.h"
#include "client/view/token_text.h"
#include "tests/client/fake_server.h"

namespace switchyard {

bool operator==(const TextPiece& a, const TextPiece& b) { return a.token == b.token && a.text == b.text; }
void PrintTo(const TextPiece& piece, std::ostream* out) { *out << piece.token << " \"" << piece.text << "\""; }

namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// Tokens of a small vocabulary: 1 "Once", 2 " upon", 3 " a", 8 and 9 the halves of "é".
std::string TextOf(int32_t id) {
  switch (id) {
    case 1:
      return "Once";
    case 2:
      return " upon";
    case 3:
      return " a";
    case 8:
    case 9:
      return "\xef\xbf\xbd";
    default:
      return "";
  }
}

TEST(TokenTextAlignerTest, OneTokenOwnsItsText) {
  TokenTextAligner aligner([](int32_t) -> std::string {
    ADD_FAILURE() << "not needed";
    return "";
  });
  EXPECT_THAT(aligner.Add({1}, "Once"), ElementsAre(TextPiece{0, "Once"}));
  EXPECT_THAT(aligner.Add({2}, " upon"), ElementsAre(TextPiece{1, " upon"}));
}

TEST(TokenTextAlignerTest, SplitsATextOfSeveralTokens) {
  TokenTextAligner aligner(TextOf);
  EXPECT_THAT(aligner.Add({1, 2, 3}, "Once upon a"),
              ElementsAre(TextPiece{0, "Once"}, TextPiece{1, " upon"}, TextPiece{2, " a"}));
}

TEST(TokenTextAlignerTest, TextThatLagsGoesToItsOwnToken) {
  TokenTextAligner aligner(TextOf);
  EXPECT_THAT(aligner.Add({1, 2}, "Once"), ElementsAre(TextPiece{0, "Once"}));
  EXPECT_THAT(aligner.Add({3}, " upon a"), ElementsAre(TextPiece{1, " upon"}, TextPiece{2, " a"}));
}

TEST(TokenTextAlignerTest, CharacterOfTwoTokensGoesToTheFirst) {
  TokenTextAligner aligner(TextOf);
  EXPECT_THAT(aligner.Add({1, 8}, "Once"), ElementsAre(TextPiece{0, "Once"}));
  EXPECT_THAT(aligner.Add({9, 2}, "é upon"), ElementsAre(TextPiece{1, "é"}, TextPiece{3, " upon"}));
}

TEST(TokenTextAlignerTest, SpaceThatSingleTokensLoseStaysWithTheNextToken) {
  TokenTextAligner aligner([](int32_t id) { return id == 1 ? "Once" : "upon"; });
  EXPECT_THAT(aligner.Add({1, 2}, "Once upon"), ElementsAre(TextPiece{0, "Once"}, TextPiece{1, " upon"}));
}

TEST(TokenTextAlignerTest, NoTextIsLostWhateverTheTokensSay) {
  const std::vector<std::string> texts = {"", "Once", " up", "", "on a é", "??"};
  for (int variant = 0; variant < 729; ++variant) {
    TokenTextAligner aligner(TextOf);
    std::string given, got;
    int rest = variant;
    for (const std::string& text : texts) {
      std::vector<int32_t> ids;
      for (int i = 0; i < rest % 3; ++i) ids.push_back((variant + i) % 10);
      rest /= 3;
      given += text;
      for (const TextPiece& piece : aligner.Add(ids, text)) got += piece.text;
    }
    EXPECT_EQ(got, given) << "variant " << variant;
  }
}

TEST(AnswerViewTest, BracketsWithoutColour) {
  AnswerView view({.explain = true, .color = false, .explain_layer = 3}, TextOf);
  std::string shown;
  for (const int token : {0, 1, 5}) shown += view.Add(TokenMessage(token));
  EXPECT_EQ(shown + view.Finish(), "[0] t0[1] t1[1] t5\n");
}

TEST(AnswerViewTest, ColoursByTheFirstExpertOfTheLayer) {
  AnswerView view({.explain = true, .color = true, .explain_layer = 3}, TextOf);
  EXPECT_EQ(view.Add(TokenMessage(1)), "\x1b[38;5;27m t1\x1b[0m");
  EXPECT_EQ(view.Add(TokenMessage(5)), "\x1b[38;5;27m t5\x1b[0m");
  EXPECT_EQ(view.Add(TokenMessage(2)), "\x1b[38;5;28m t2\x1b[0m");
}

TEST(AnswerViewTest, OtherChoicesFollowAtTheEnd) {
  AnswerView view({}, TextOf);
  v1::GenerateStreamResponse message = TokenMessage(0);
  v1::ChoiceDelta* other = message.add_choices();
  other->set_index(1);
  other->set_text("second");
  EXPECT_EQ(view.Add(message), " t0");
  EXPECT_EQ(view.Finish(), "\n--- choice 1\nsecond\n");
}

TEST(AnswerViewTest, ListsLogprobs) {
  AnswerView view({.logprobs = true}, TextOf);
  v1::GenerateStreamResponse message = TokenMessage(2);
  v1::TokenDetail* detail = message.mutable_choices(0)->mutable_details(0);
  detail->set_logprob(-0.25f);
  v1::TopLogprob* top = detail->add_top_logprobs();
  top->set_text(" upon");
  top->set_logprob(-0.25f);
  view.Add(message);
  EXPECT_EQ(view.Finish(),
            "\n   token   logprob  text              most likely\n"
            "       2    -0.250  \" upon\"           \" upon\" -0.250\n");
}

TEST(AnswerViewTest, ControlCharactersDoNotReachATerminal) {
  AnswerView view({.printable = true}, TextOf);
  v1::GenerateStreamResponse message;
  message.add_choices()->set_text(
      "a\x1b[2Jb\n\tc\xc2\x9b"
      "d é");
  EXPECT_EQ(view.Add(message),
            "a\xef\xbf\xbd[2Jb\n\tc\xef\xbf\xbd"
            "d é");
}

TEST(RoutingTallyTest, RendersShareWeightAndBar) {
  RoutingTally tally;
  for (const int token : {0, 0, 0, 1}) tally.Add(TokenMessage(token).choices(0).details(0));
  EXPECT_EQ(RenderExpertTable(tally, {.num_experts = 4, .top_k = 2, .bar_width = 8}),
            R"(4 tokens, each through 2 of 4 experts per layer
layer    expert  tokens   share  weight
    1         1       4  100.0%   0.375  ████████
              0       3   75.0%   0.750  ██████
              2       1   25.0%   0.250  ██
    3         1       4  100.0%   0.375  ████████
              0       3   75.0%   0.750  ██████
              2       1   25.0%   0.250  ██
)");
}

TEST(RoutingTallyTest, ChoicesAreConserved) {
  RoutingTally tally;
  for (int token = 0; token < 100; ++token) tally.Add(TokenMessage(token).choices(0).details(0));
  for (const auto& [index, layer] : tally.layers()) {
    int64_t sum = 0;
    for (const auto& [id, expert] : layer.experts) sum += expert.num_tokens;
    EXPECT_EQ(sum, 2 * layer.num_tokens) << "layer " << index;
  }
}

TEST(RoutingTallyTest, RareExpertsShareOneRowAndOnlyTheColouredLayerIsPainted) {
  RoutingTally tally;
  for (int token = 0; token < 8; ++token) tally.Add(TokenMessage(token).choices(0).details(0));
  const std::string table =
      RenderExpertTable(tally, {.color = true, .colored_layer = 3, .max_experts = 2, .num_experts = 4, .top_k = 2});
  EXPECT_THAT(table, HasSubstr("      2 more       8  100.0%   0.500\n"));
  EXPECT_THAT(table.substr(0, table.find("\x1b[38;5;160m    3")), Not(HasSubstr("\x1b[")));
  EXPECT_THAT(table, HasSubstr("\x1b[38;5;160m    3"));
}

TEST(RoutingTallyTest, NothingTalliedShowsNothing) { EXPECT_THAT(RenderExpertTable({}, {}), IsEmpty()); }

// One layer of `rows` with 1 ms per row.
v1::ExpertLoad Load(const std::vector<uint64_t>& rows) {
  v1::ExpertLoad load;
  load.set_num_experts(static_cast<int>(rows.size()));
  load.set_top_k(1);
  load.set_num_steps(10);
  v1::LayerExpertLoad* layer = load.add_layers();
  layer->set_seconds(0.02);
  for (const uint64_t count : rows) {
    load.set_num_tokens(load.num_tokens() + count);
    layer->add_tokens_per_expert(count);
    layer->add_seconds_per_expert(1e-3 * static_cast<double>(count));
  }
  return load;
}

TEST(ExpertMapTest, DrawsSharesAndHottest) {
  EXPECT_EQ(RenderExpertMap(Load({20, 10, 50, 0}), {.width = 100, .num_hottest = 2}),
            R"(layer      0      1      2      3   imbalance  active   ms/step
    0  ▄ 25%  ▂ 12%  █ 62%  ·  0%        2.50     3/4     2.000

hottest experts                  rows   share     x mean    us per row
layer 0 expert 2                   50   62.5%       2.50        1000.0
layer 0 expert 0                   20   25.0%       1.00        1000.0
)");
}

TEST(ExpertMapTest, ManyExpertsShrinkToBlocksAndWrap) {
  std::vector<uint64_t> rows(64, 1);
  const std::string narrow = RenderExpertMap(Load(rows), {.width = 120, .num_hottest = 0});
  EXPECT_THAT(narrow, HasSubstr("layer  0         10        20        30        40        50        60  "));
  const std::string wrapped = RenderExpertMap(Load(rows), {.width = 80, .num_hottest = 0});
  size_t num_lines = 0;
  for (size_t begin = 0; begin < wrapped.size(); begin = wrapped.find('\n', begin) + 1) ++num_lines;
  EXPECT_EQ(num_lines, 3u) << wrapped;
}

TEST(ExpertMapTest, LatencyShowsMicrosecondsPerRow) {
  v1::ExpertLoad load = Load({10, 10});
  load.mutable_layers(0)->set_seconds_per_expert(1, 3e-2);
  EXPECT_THAT(RenderExpertMap(load, {.metric = ExpertMetric::kLatency}), HasSubstr("    0  ▂1000  ▆3000"));
}

TEST(ExpertMapTest, EmptyLoadIsDrawn) {
  EXPECT_THAT(RenderExpertMap(Load({0, 0}), {}), HasSubstr("·  0%"));
  EXPECT_THAT(RenderExpertMap(v1::ExpertLoad(), {}), HasSubstr("layer"));
}

TEST(ExpertMapTest, AddedSinceSubtracts) {
  v1::ExpertLoad before = Load({1, 2});
  before.mutable_time()->set_seconds(5);
  v1::ExpertLoad now = Load({4, 2});
  now.mutable_time()->set_seconds(7);
  const v1::ExpertLoad added = AddedSince(before, now);
  EXPECT_THAT(added.layers(0).tokens_per_expert(), ElementsAre(3u, 0u));
  EXPECT_NEAR(added.layers(0).seconds_per_expert(0), 3e-3, 1e-9);
  EXPECT_EQ(added.num_tokens(), 3u);
  EXPECT_EQ(added.period().seconds(), 2);
}

TEST(ExpertMapTest, AddedSinceStartsAnewAfterARestart) {
  EXPECT_EQ(AddedSince(Load({5, 5}), Load({1, 2})).num_tokens(), 3u);
  EXPECT_EQ(AddedSince(Load({1, 1, 1}), Load({5, 5})).num_tokens(), 10u);
}

TEST(TerminalTest, BarsAndBlocksFollowTheFraction) {
  EXPECT_EQ(Bar(0.5, 4), "██  ");
  EXPECT_EQ(Bar(0.53125, 4), "██▏ ");
  EXPECT_EQ(Bar(7, 2), "██");
  EXPECT_EQ(Bar(-1, 2), "  ");
  EXPECT_EQ(Block(0), " ");
  EXPECT_EQ(Block(1e-9), "▁");
  EXPECT_EQ(Block(0.5), "▄");
  EXPECT_EQ(Block(9), "█");
}

}  // namespace
}  // namespace switchyard
