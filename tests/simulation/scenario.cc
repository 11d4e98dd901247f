#include "tests/simulation/scenario.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "tests/simulation/toy_model.h"

namespace switchyard::simulation {
namespace {

using std::chrono::microseconds;

class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(Hash(seed, 0x5eed)) {}

  uint64_t Next() { return Hash(state_++, 0xd1ce); }
  // Inclusive.
  int32_t Between(int32_t low, int32_t high) {
    return low + static_cast<int32_t>(Next() % static_cast<uint64_t>(high - low + 1));
  }
  bool OneIn(uint64_t n) { return Next() % n == 0; }
  template <typename T>
  T OneOf(std::initializer_list<T> values) {
    return *std::next(values.begin(), static_cast<std::ptrdiff_t>(Next() % values.size()));
  }
  microseconds Duration(int64_t max_microseconds) { return microseconds(Next() % (max_microseconds + 1)); }

 private:
  uint64_t state_;
};

SchedulerOptions MakeOptions(Dice& dice) {
  SchedulerOptions options;
  options.max_model_len = dice.OneOf({24, 48, 96, 96});
  options.block_size = dice.OneOf({1, 2, 3, 4, 4, 8, 16});
  options.max_num_seqs = dice.OneOf({1, 3, 6, 10, 16, 16});
  // From less than one full context to ample.
  const int32_t context_blocks = (options.max_model_len + options.block_size - 1) / options.block_size;
  options.num_kv_blocks = std::max(2, context_blocks * dice.OneOf({3, 4, 4, 5, 5, 6, 7, 8, 12, 40}) / 4);
  options.enable_chunked_prefill = !dice.OneIn(4);
  options.max_num_batched_tokens = options.max_num_seqs + dice.OneOf({0, 1, 7, dice.Between(0, 60)});
  if (!options.enable_chunked_prefill) options.max_num_batched_tokens += options.max_model_len;
  options.max_prefill_tokens_while_decoding = dice.OneIn(2) ? 0 : dice.Between(1, options.max_num_batched_tokens);
  options.policy = dice.OneIn(3) ? SchedulingPolicy::kPriority : SchedulingPolicy::kFcfs;
  options.priority_step = microseconds(dice.OneOf({0, 2'000, 50'000, 10'000'000}));
  options.enable_prefix_caching = !dice.OneIn(4);
  options.max_preemptions = dice.OneOf({0, 1, 2, 3, 3, 3, 1000});
  return options;
}

// The only truth about outputs: one loop, no scheduler, no blocks.
void RunAlone(Client& client, int32_t max_model_len, uint64_t nonfinite_one_in) {
  uint64_t chain = 0, fold = 0;
  int32_t position = 0;
  const auto run = [&](int32_t token) {
    chain = ExtendChain(chain, token, position++);
    fold = ExtendFold(fold, chain);
  };
  for (const int32_t token : client.prompt) run(token);
  const auto end_with = [&](FinishReason reason, TerminalStatus status) {
    client.alone_reason = reason;
    client.alone_status = status;
  };
  while (true) {
    const Draw draw = DrawToken(fold, client.sampling, position, nonfinite_one_in);
    if (!draw.finite) return end_with(FinishReason::kError, TerminalStatus::kDataLoss);
    const bool verdict_now = static_cast<int>(client.alone_tokens.size()) + 1 == client.verdict_at_token;
    if (verdict_now && client.verdict == SinkVerdict::kSlowReader) {
      return end_with(FinishReason::kError, TerminalStatus::kSlowReader);
    }
    client.alone_tokens.push_back(draw.token);
    const auto& stops = client.sampling.stop_token_ids;
    if (std::ranges::find(stops, draw.token) != stops.end()) {
      return end_with(draw.token == kEosId ? FinishReason::kEos : FinishReason::kStop, TerminalStatus::kOk);
    }
    if (verdict_now) return end_with(FinishReason::kStop, TerminalStatus::kOk);
    const int32_t num_output = static_cast<int32_t>(client.alone_tokens.size());
    if (num_output == client.max_tokens || position + 1 == max_model_len) {
      return end_with(FinishReason::kLength, TerminalStatus::kOk);
    }
    run(draw.token);
  }
}

// Fresh, equal to somebody's, the start of somebody's, or a next turn of somebody's conversation.
std::vector<int32_t> MakePrompt(Dice& dice, const std::vector<Client>& earlier, int32_t max_tokens) {
  std::vector<int32_t> prompt;
  if (!earlier.empty() && !dice.OneIn(3)) {
    const Client& other = earlier[dice.Next() % earlier.size()];
    prompt = other.prompt;
    if (dice.OneIn(2)) {
      const size_t num_output = dice.Next() % (other.alone_tokens.size() + 1);
      prompt.insert(prompt.end(), other.alone_tokens.begin(), other.alone_tokens.begin() + num_output);
    }
    if (dice.OneIn(2)) prompt.resize(static_cast<size_t>(dice.Between(1, static_cast<int32_t>(prompt.size()))));
    if (dice.OneIn(4)) return prompt.resize(std::min<size_t>(prompt.size(), max_tokens)), prompt;
  }
  const int32_t longest = dice.OneIn(3) ? max_tokens : std::max(1, max_tokens / 4);
  for (int32_t i = dice.Between(1, longest); i > 0; --i) prompt.push_back(dice.Between(2, kVocabSize - 1));
  prompt.resize(std::min<size_t>(prompt.size(), max_tokens));
  return prompt;
}

void MakeTroublesome(Client& client, Dice& dice, microseconds horizon) {
  const int some = dice.Between(1, dice.OneIn(2) ? 4 : 20);
  switch (dice.Between(1, 7)) {
    case 1:
      client.deadline = client.arrival + dice.Duration(dice.OneIn(2) ? 20'000 : horizon.count());
      return;
    case 2:
      client.cancel_time = client.arrival + dice.Duration(dice.OneIn(2) ? 20'000 : horizon.count());
      return;
    case 3:
      client.cancel_at_token = some;
      return;
    case 4:
      client.cancel_in_flight_of_slice = some;
      return;
    case 5:
      client.cancel_at_preemption = dice.Between(1, 2);
      return;
    case 6:
      client.verdict = SinkVerdict::kStop;
      break;
    case 7:
      client.verdict = SinkVerdict::kSlowReader;
      break;
  }
  client.verdict_at_token = some;
}

// What the clients of one scenario have in common.
struct Mood {
  microseconds horizon;     // all arrive before it
  uint64_t trouble_one_in;  // 0: nobody makes trouble
  int32_t longest_prompt;
  int32_t longest_output;
};

Client MakeClient(Dice& dice, const Scenario& scenario, const Mood& mood) {
  const int32_t max_model_len = scenario.options.max_model_len;
  Client client;
  client.prompt = MakePrompt(dice, scenario.clients, std::min(max_model_len - 1, mood.longest_prompt));
  const int32_t room = max_model_len - static_cast<int32_t>(client.prompt.size());
  client.max_tokens = dice.OneIn(4) ? room : dice.Between(1, std::min(room, mood.longest_output));
  client.sampling.seed = static_cast<uint64_t>(dice.Between(0, 2));
  if (dice.OneIn(2)) client.eos_token_ids = {kEosId};
  client.sampling.stop_token_ids = client.eos_token_ids;
  if (dice.OneIn(6)) client.sampling.stop_token_ids.push_back(kStopId);
  client.priority = dice.OneOf({-1, 0, 0, 0, 1, 5, INT32_MAX, INT32_MIN});
  client.allow_prefix_reuse = !dice.OneIn(8);
  client.arrival = kStart + dice.Duration(mood.horizon.count());
  if (mood.trouble_one_in != 0 && dice.OneIn(mood.trouble_one_in)) MakeTroublesome(client, dice, mood.horizon);
  RunAlone(client, max_model_len, scenario.nonfinite_one_in);
  return client;
}

// Half of the engines take two steps at once, and some of their clients want what only the host can sample. Not of the
// dice: what else a seed draws stays as it is.
void MakeAhead(Scenario& scenario) {
  const uint64_t hash = Hash(scenario.seed, 0xa4ead);
  scenario.steps_in_flight = 1 + static_cast<int>(hash % 2);
  scenario.fails_at_launch = hash / 2 % 2 == 0;
  const uint64_t host_sampled_one_in = std::array<uint64_t, 4>{0, 0, 40, 4}[hash / 4 % 4];
  for (Client& client : scenario.clients) {
    if (host_sampled_one_in != 0 && Hash(hash, client.id) % host_sampled_one_in == 0) client.sampling.num_logprobs = 0;
  }
}

}  // namespace

Scenario MakeScenario(uint64_t seed) {
  Dice dice(seed);
  Scenario scenario;
  scenario.seed = seed;
  scenario.options = MakeOptions(dice);
  scenario.queue_max_requests = dice.OneOf({2, 30, 1'000, 1'000, 1'000, 1'000});
  scenario.queue_max_tokens = dice.OneOf({100, 2'000, 100'000, 100'000, 100'000});
  scenario.nonfinite_one_in = dice.OneOf<uint64_t>({0, 0, 0, 100});
  scenario.min_step_time = dice.Duration(1'000);
  scenario.max_step_time = scenario.min_step_time + dice.Duration(4'000);
  const Mood mood{.horizon = microseconds(dice.OneOf({0, 10'000, 200'000, 1'000'000})),
                  .trouble_one_in = dice.OneOf<uint64_t>({0, 1, 3, 6, 10}),
                  .longest_prompt = dice.OneOf({3, 4, 16, 95}),
                  .longest_output = dice.OneOf({8, 40, 90, 90})};
  if (dice.OneIn(8)) scenario.fail_step = dice.Between(1, 400);
  if (dice.OneIn(6)) {
    scenario.drain_time = kStart + dice.Duration(mood.horizon.count() + 200'000);
    if (dice.OneIn(2)) scenario.drain_deadline = scenario.drain_time + dice.Duration(500'000);
  }
  const int num_clients = dice.Between(1, dice.OneOf({6, 50, 150, 300}));
  for (int i = 0; i < num_clients; ++i) {
    scenario.clients.push_back(MakeClient(dice, scenario, mood));
  }
  std::ranges::stable_sort(scenario.clients, {}, &Client::arrival);
  for (size_t i = 0; i < scenario.clients.size(); ++i) scenario.clients[i].id = i + 1;
  MakeAhead(scenario);
  return scenario;
}

}  // namespace switchyard::simulation
