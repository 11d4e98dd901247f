// Runs many seeds of the scheduler simulation; stops at the first that breaks a check, shrinks it and says how to see
// it again. The seeds run in a child process, so that a crash or a hang is a finding like any other.
//
//   scheduler_simulation --seeds=N --first=F   seeds F .. F+N-1; with SWITCHYARD_LONG_TESTS=1 twenty times as many
//   scheduler_simulation --seconds=S           as many as fit, from F on
//   scheduler_simulation --long                an hour
//   scheduler_simulation --seed=N [--keep=3,7] [--trace]   one, with these clients only, step by step
//   --no-shrink                                the seed only
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>

#include "server/scheduler/request_queue.h"
#include "tests/simulation/scenario.h"
#include "tests/simulation/simulation.h"

namespace switchyard::simulation {
namespace {

constexpr unsigned kHangSeconds = 10;  // per seed; a seed takes milliseconds

struct Flags {
  uint64_t first = 1;
  uint64_t num_seeds = 10'000;
  double seconds = 1e9;
  std::optional<uint64_t> only;
  bool shrink = true;
  RunOptions run;
};

// What the child leaves behind, in shared memory: survives its crash.
struct Finding {
  uint64_t seed = 0;
  char check[64] = {};
  char where[128] = {};
};

bool ParseFlag(std::string_view argument, Flags& flags) {
  const size_t equals = argument.find('=');
  const std::string_view name = argument.substr(0, equals);
  const std::string value(equals == std::string_view::npos ? "" : argument.substr(equals + 1));
  if (name == "--seeds") return flags.num_seeds = std::strtoull(value.c_str(), nullptr, 10), true;
  if (name == "--first") return flags.first = std::strtoull(value.c_str(), nullptr, 10), true;
  if (name == "--seed") return flags.only = std::strtoull(value.c_str(), nullptr, 10), true;
  if (name == "--seconds") return flags.num_seeds = UINT64_MAX / 64, flags.seconds = std::atof(value.c_str()), true;
  if (name == "--long") return flags.num_seeds = UINT64_MAX / 64, flags.seconds = 3600, true;
  if (name == "--trace") return flags.run.trace = true;
  if (name == "--no-shrink") return flags.shrink = false, true;
  if (name != "--keep") return false;
  for (const char* next = value.c_str(); *next != '\0';) {
    char* end = nullptr;
    flags.run.kept.insert(std::strtoull(next, &end, 10));
    next = *end == ',' ? end + 1 : end;
  }
  return true;
}

void Remember(Finding* finding, const Violation& violation) {
  std::snprintf(finding->check, sizeof(finding->check), "%s", violation.check.c_str());
  std::snprintf(finding->where, sizeof(finding->where), "%s", violation.where.c_str());
}

// Runs `body` in a child. True: it returned true.
bool RunInChild(Finding* finding, const std::function<bool()>& body) {
  std::fflush(stdout);
  *finding = Finding();
  const pid_t child = fork();
  if (child == 0) {
    const bool passed = body();
    std::fflush(stdout);
    _exit(passed ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
  if (finding->check[0] == '\0') {
    const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    std::snprintf(finding->check, sizeof(finding->check), "%s",
                  signal == SIGALRM   ? "hang"
                  : signal == SIGABRT ? "CHECK or assertion"
                                      : "crash");
  }
  return false;
}

// Every way to wake the consumer wakes it: the one check that needs real threads.
bool WakesUp(Finding* finding) {
  using Action = void (*)(RequestQueue&);
  for (const Action action :
       {Action([](RequestQueue& queue) {
          auto request = std::make_unique<Request>();
          request->prompt_tokens = {1};
          (void)queue.Push(std::move(request));
        }),
        Action([](RequestQueue& queue) { queue.Cancel(1); }), Action([](RequestQueue& queue) { queue.Wake(); })}) {
    RequestQueue queue(1, 1);
    const auto start = std::chrono::steady_clock::now();
    std::thread producer([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      action(queue);
    });
    queue.WaitUntil(start + std::chrono::seconds(10));
    producer.join();
    if (std::chrono::steady_clock::now() - start < std::chrono::seconds(5)) continue;
    Remember(finding, {"wake_up", "a sleeping consumer was not woken"});
    return false;
  }
  return true;
}

bool RunSeed(uint64_t seed, const RunOptions& options, Coverage& coverage, Finding* finding) {
  finding->seed = seed;
  alarm(kHangSeconds);
  const std::optional<Violation> violation = Simulate(MakeScenario(seed), options, coverage);
  if (violation) Remember(finding, *violation);
  return !violation;
}

void PrintCoverage(uint64_t num_seeds, double seconds, const Coverage& coverage) {
  const auto total = [](int64_t value) { return static_cast<long long>(value); };
  const SchedulerCounts& counts = coverage.counts;
  std::printf("%llu seeds, 0 violations, %.1f s (%.0f seeds/s)\n", static_cast<unsigned long long>(num_seeds), seconds,
              static_cast<double>(num_seeds) / seconds);
  std::printf("%lld requests, %lld admitted, %lld refused by the queue, %lld steps, %lld slices, %lld tokens\n",
              total(coverage.requests), total(counts.admitted_total), total(coverage.refused), total(coverage.steps),
              total(coverage.slices), total(counts.generation_tokens_total));
  std::printf("%lld steps planned ahead, in which %lld slices were of sequences that had ended\n",
              total(coverage.ahead_steps), total(coverage.wasted_slices));
  std::printf("%lld preemptions, %lld tokens recomputed, %lld of %lld prompt tokens reused\n",
              total(counts.preemptions_total), total(counts.recomputed_tokens_total),
              total(counts.prefix_hit_tokens_total), total(counts.prefix_query_tokens_total));
  std::printf("ended by stop %lld, eos %lld, length %lld, cancel %lld, deadline %lld, error %lld\n",
              total(counts.finished_total[0]), total(counts.finished_total[1]), total(counts.finished_total[2]),
              total(counts.finished_total[3]), total(counts.finished_total[4]), total(counts.finished_total[5]));
  std::printf(
      "cancelled while queued %lld, prefill %lld, decode %lld, preempted %lld; deadlines %lld, %lld, %lld, %lld\n",
      total(counts.cancelled_total[0]), total(counts.cancelled_total[1]), total(counts.cancelled_total[2]),
      total(counts.cancelled_total[3]), total(counts.deadline_total[0]), total(counts.deadline_total[1]),
      total(counts.deadline_total[2]), total(counts.deadline_total[3]));
}

bool RunSeeds(const Flags& flags, Finding* finding) {
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  if (!WakesUp(finding)) return false;
  Coverage coverage;
  uint64_t done = 0;
  for (; done < flags.num_seeds && elapsed() < flags.seconds; ++done) {
    if (!RunSeed(flags.first + done, flags.run, coverage, finding)) return false;
  }
  PrintCoverage(done, elapsed(), coverage);
  return true;
}

std::string KeepFlag(const std::set<uint64_t>& kept) {
  std::string flag;
  for (const uint64_t id : kept) flag += (flag.empty() ? " --keep=" : ",") + std::to_string(id);
  return flag;
}

// Sends home one client after the other, as long as something still breaks; returns those that are needed.
std::set<uint64_t> Shrink(uint64_t seed, std::set<uint64_t> kept, Finding* finding) {
  const Finding original = *finding;
  const Scenario scenario = MakeScenario(seed);
  if (kept.empty()) std::ranges::transform(scenario.clients, std::inserter(kept, kept.end()), &Client::id);
  size_t before = 0;
  while (kept.size() != before) {
    before = kept.size();
    for (const uint64_t id : std::set<uint64_t>(kept)) {
      RunOptions options{.kept = kept};
      options.kept.erase(id);
      if (options.kept.empty()) break;
      Coverage coverage;
      const bool passed = RunInChild(finding, [&] { return RunSeed(seed, options, coverage, finding); });
      if (!passed) kept = options.kept;
    }
  }
  std::printf("shrunk from %zu clients to %zu\n", scenario.clients.size(), kept.size());
  *finding = original;
  return kept;
}

int Main(int argc, char** argv) {
  Flags flags;
  for (int i = 1; i < argc; ++i) {
    if (ParseFlag(argv[i], flags)) continue;
    std::fprintf(stderr, "unknown flag %s\n", argv[i]);
    return 2;
  }
  const char* long_tests = std::getenv("SWITCHYARD_LONG_TESTS");
  if (long_tests != nullptr && *long_tests == '1') flags.num_seeds *= 20;
  if (flags.only) flags.first = *flags.only, flags.num_seeds = 1;
  void* shared = mmap(nullptr, sizeof(Finding), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return 2;
  auto* finding = new (shared) Finding();
  if (RunInChild(finding, [&] { return RunSeeds(flags, finding); })) return 0;

  std::printf("FOUND seed=%llu check=%s (%s)\n", static_cast<unsigned long long>(finding->seed), finding->check,
              finding->where);
  std::set<uint64_t> kept = flags.run.kept;
  if (flags.shrink && finding->seed != 0) kept = Shrink(finding->seed, kept, finding);
  std::printf("again: %s --seed=%llu%s --trace\n", argv[0], static_cast<unsigned long long>(finding->seed),
              KeepFlag(kept).c_str());
  return 1;
}

}  // namespace
}  // namespace switchyard::simulation

int main(int argc, char** argv) { return switchyard::simulation::Main(argc, argv); }
