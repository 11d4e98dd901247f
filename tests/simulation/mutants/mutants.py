"""Planted scheduler bugs, and the proof that the simulation finds each of them.

A mutant replaces one piece of text in a copy of one scheduler source; the product code knows nothing of it. If the
text is no longer there exactly once, the build fails: adapt the mutant to the new code.

  mutants.py list                      NAME FILE per line, for CMake
  mutants.py apply NAME SOURCE OUTPUT  writes the mutated copy
  mutants.py run BIN_DIR [--seeds=N]   runs BIN_DIR/mutant_NAME for each, prints the table; fails if one survives
"""

import pathlib
import re
import subprocess
import sys

SCHEDULER = "scheduler.cc"
POOL = "kv_block_pool.cc"
QUEUE = "request_queue.cc"

# name: (file, old text, new text)
MUTANTS = {
    # Blocks.
    "leak_on_cancel_in_flight": (
        SCHEDULER, "  if (!sequence->in_flight()) ReleaseBlocks(sequence);\n",
        "  if (!sequence->in_flight() && !sequence->cancelled) ReleaseBlocks(sequence);\n"),
    "leak_of_first_block_on_preempt": (
        SCHEDULER, "  ReleaseBlocks(victim);", "  victim->block_table.erase(victim->block_table.begin());\n"
        "  ReleaseBlocks(victim);"),
    "double_free_after_preempt": (
        SCHEDULER, "  ReleaseBlocks(victim);",
        "  const auto blocks = victim->block_table;\n  ReleaseBlocks(victim);\n  victim->block_table = blocks;"),
    "block_end_off_by_one": (
        SCHEDULER, "NumBlocks(sequence.num_expected()) > static_cast",
        "NumBlocks(sequence.num_expected() - 1) > static_cast"),
    "cancel_ends_a_step_in_flight": (SCHEDULER, "  if (sequence->in_flight()) {", "  if (false) {"),
    "evicts_referenced_block": (
        POOL, "if (--blocks_[block].ref_count > 0) return;", "if (--blocks_[block].ref_count > 1) return;"),
    "revived_block_stays_available": (
        POOL, "    CHECK(blocks_[block].content != kNoContent);\n    UnlinkAvailable(block);", ""),
    "revived_blocks_counted_as_free": (SCHEDULER, "pool_.num_available() - num_revived <",
                                       "pool_.num_available() - 0 * num_revived <"),
    # Prefix reuse.
    "stale_prefix_hash": (POOL, "  Forget(block);\n", ""),
    "prefix_ignores_what_came_before": (POOL, "blocks_[block].parent == parent && ", ""),
    "prefix_trusts_the_hash": (POOL, "blocks_[block].parent == parent && std::ranges::equal(Tokens(block), tokens)",
                               "blocks_[block].hash % 64 == hash % 64 && tokens.size() > 0"),
    "reuses_last_prompt_token": (SCHEDULER, "(sequence.num_tokens() - 1) / options_.block_size",
                                 "sequence.num_tokens() / options_.block_size"),
    "publishes_unfinished_block": (SCHEDULER, "sequence->num_published < sequence->num_computed / options_",
                                   "sequence->num_published < sequence->num_tokens() / options_"),
    "reuses_for_opted_out_request": (
        SCHEDULER, "  prefix_.clear();\n  if (!ReusesPrefixes(sequence)) return;",
        "  prefix_.clear();\n  if (!options_.enable_prefix_caching) return;"),
    # Preemption.
    "token_lost_after_preempt": (SCHEDULER, "  LeaveRunning(victim);\n",
                                 "  LeaveRunning(victim);\n  if (victim->num_output_tokens() > 0) victim->tokens.pop_back();\n"),
    "samples_during_recompute": (
        SCHEDULER, ".sample = num_tokens == sequence->num_pending(),",
        ".sample = sequence->num_computed + num_tokens >= sequence->num_prompt_tokens(),"),
    "preempts_the_oldest": (SCHEDULER, "Sequence* victim = running_.back();", "Sequence* victim = running_.front();"),
    "preempts_once_too_often": (SCHEDULER, "victim->num_preemptions < options_.max_preemptions",
                                "victim->num_preemptions <= options_.max_preemptions"),
    "protected_ones_overcommit": (SCHEDULER, "if (protected_blocks_ + WorstCaseBlocks(*sequence) <= pool_.num_blocks()) return",
                                  "return"),
    # Order and budget.
    "budget_overrun": (SCHEDULER, "    budget -= num_tokens;\n", ""),
    "prefill_stalls_decodes": (SCHEDULER, "  if (num_decodes > 0) budget = std::min", "  if (false) budget = std::min"),
    "newcomers_starve_running_prefills": (SCHEDULER, "(chosen == nullptr || waiting->rank < chosen->rank)", "true"),
    "newest_first": (SCHEDULER, "    if (sequence->rank.preemptible) return sequence;\n",
                     "    if (sequence->rank.preemptible) return *waiting_.rbegin();\n"),
    "one_sequence_too_many": (SCHEDULER, "static_cast<int32_t>(running_.size()) >= options_.max_num_seqs",
                              "static_cast<int32_t>(running_.size()) > options_.max_num_seqs"),
    # Ends.
    "deadline_missed_while_queued": (
        SCHEDULER, "    Finish(sequence, FinishReason::kDeadline",
        "    deadlines_.erase(deadlines_.begin());\n    if (!sequence->running) continue;\n"
        "    Finish(sequence, FinishReason::kDeadline"),
    "deadline_outlives_its_request": (SCHEDULER, "  deadlines_.erase({sequence->request->deadline, id});\n", ""),
    "fail_all_forgets_the_waiting": (
        SCHEDULER, "  while (!waiting_.empty()) Finish(*waiting_.begin(), FinishReason::kError, status, now);\n", ""),
    "slow_readers_token_counts": (
        SCHEDULER, "  // A token that found no room in the sink was not delivered.\n",
        "  sequence->tokens.push_back(token.token);\n"
        "  if (verdict != SinkVerdict::kSlowReader) sequence->tokens.pop_back();\n"),
    "nonfinite_token_is_delivered": (SCHEDULER, "  if (!token.finite) return Finish", "  if (false) return Finish"),
    "cancelled_in_flight_goes_on": (SCHEDULER, "    sequence->cancelled = true;", "    sequence->cancelled = false;"),
    "waiting_tokens_drift": (SCHEDULER, "  counts_.waiting_tokens -= sequence->num_tokens();\n", ""),
    # Two steps in flight.
    "freed_while_the_next_step_runs": (
        SCHEDULER, "  if (!sequence->in_flight()) ReleaseBlocks(sequence);\n", "  ReleaseBlocks(sequence);\n"),
    "leak_of_ended_ones_blocks": (
        SCHEDULER, "  for (const std::unique_ptr<Sequence>& sequence : step->ended) ReleaseBlocks(sequence.get());\n", ""),
    "token_after_the_end": (SCHEDULER, "  if (sequence->ended) return;", "  if (false) return;"),
    "result_goes_to_the_newest_step": (SCHEDULER, "  Step& step = steps_[oldest_];\n",
                                       "  Step& step = steps_[(oldest_ + steps_in_flight_ - 1) % steps_.size()];\n"),
    "unknown_token_of_another_slice": (SCHEDULER, "push_back(~sequence.sample_index)", "push_back(~step.num_sampled)"),
    "unknown_tokens_share_a_place": (
        SCHEDULER, "  step.unknown_tokens.push_back(~sequence.sample_index);\n  return std::span(step.unknown_tokens)",
        "  steps_[0].unknown_tokens.push_back(~sequence.sample_index);\n  return std::span(steps_[0].unknown_tokens)"),
    "chunk_runs_twice": (SCHEDULER, "std::span(sequence.tokens).subspan(sequence.num_planned, num_tokens)",
                         "std::span(sequence.tokens).subspan(sequence.num_computed, num_tokens)"),
    "position_of_the_step_before": (SCHEDULER, ".first_position = sequence->num_planned",
                                    ".first_position = sequence->num_computed"),
    "no_block_for_the_unknown_token": (SCHEDULER, "NumBlocks(sequence.num_expected()) > static_cast",
                                       "NumBlocks(sequence.num_tokens()) > static_cast"),
    "publishes_before_it_is_applied": (SCHEDULER, "sequence->num_published < sequence->num_computed / options_",
                                       "sequence->num_published < sequence->num_planned / options_"),
    "plans_past_max_tokens": (SCHEDULER, "sequence.num_output_tokens() + sequence.num_sampling < sequence.request",
                              "sequence.num_output_tokens() < sequence.request"),
    "cancelled_one_is_planned_ahead": (SCHEDULER, "  return !sequence.cancelled && ", "  return "),
    "plans_ahead_of_a_host_sampled_token": (SCHEDULER, " || steps_[oldest_].samples_on_host", ""),
    "plans_ahead_past_a_deadline": (SCHEDULER, "  if (next_deadline() <= now || ", "  if ("),
    "preempts_ahead": (SCHEDULER, " || !HasBlocksForNextTokens()", ""),
    "never_plans_ahead": (SCHEDULER, "  if (next_deadline() <= now || ", "  if (steps_in_flight_ == 1 || "),
    # Queue.
    "push_wakes_nobody": (QUEUE, "  pending_tokens_ += num_tokens;\n  arrived_.NotifyOne();\n",
                          "  pending_tokens_ += num_tokens;\n"),
    "wake_is_forgotten": (QUEUE, "  woken_ = true;\n", ""),
    "bound_has_a_gap_while_taking": (
        QUEUE, "  waiting_requests_ += static_cast<int64_t>(pending_.requests.size());\n", ""),
    "closed_queue_takes_requests": (QUEUE, "  if (closed_) return", "  if (closed_ && num_tokens < 0) return"),
}


def apply(name: str, source: str, output: str) -> None:
    _, old, new = MUTANTS[name]
    text = pathlib.Path(source).read_text()
    if text.count(old) != 1:
        sys.exit(f"mutant {name}: its text is {text.count(old)} times in {source}, expected once:\n{old}")
    pathlib.Path(output).write_text(text.replace(old, new))


def run(bin_dir: str, seeds: str) -> int:
    survivors = 0
    print(f"{'mutant':36} {'found at seed':>13}  by check")
    for name in MUTANTS:
        binary = pathlib.Path(bin_dir) / f"mutant_{name}"
        result = subprocess.run([binary, seeds, "--no-shrink"], capture_output=True, text=True, timeout=120)
        found = re.search(r"FOUND seed=(\d+) check=(.*?) \(", result.stdout)
        if result.returncode == 0 or not found:
            survivors += 1
            print(f"{name:36} {'-':>13}  SURVIVED\n{result.stdout}{result.stderr}")
        else:
            print(f"{name:36} {found[1]:>13}  {found[2]}")
    print(f"{len(MUTANTS) - survivors} of {len(MUTANTS)} mutants found")
    return 1 if survivors else 0


def main() -> int:
    command, *arguments = sys.argv[1:]
    if command == "list":
        print("\n".join(f"{name} {file}" for name, (file, _, _) in MUTANTS.items()))
    elif command == "apply":
        apply(*arguments)
    elif command == "run":
        return run(arguments[0], arguments[1] if len(arguments) > 1 else "--seeds=2000")
    return 0


if __name__ == "__main__":
    sys.exit(main())
