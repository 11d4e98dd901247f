#include "engine/backend/cpu/expert_mlp.h"

#include <algorithm>
#include <chrono>
#include <tuple>

#include "engine/base/status_macros.h"

namespace switchyard::cpu {
namespace {

// Threads work on an expert in teams that split its output columns, so that each thread reads a long stream of weights
// and the expert's wall time means something. One team of all threads, unless the expert is so narrow that the shares
// would be short: then each thread is its own team and takes whole experts.
//
//   team of 2, experts 3 and 5:  gather e3 | gate/up e3 | down e3, gather e5 | gate/up e5 | down e5
//                                          ^ barrier    ^                    ^            ^
constexpr int64_t kMinPanelsPerThread = 8;

// Outputs of more than 4 MiB go past the caches: fetching each line before overwriting it cost 3 of 45 ms at 512
// tokens.
constexpr int64_t kStreamElements = 1 << 20;

struct TeamShape {
  int team_size;
  int num_teams;
};

TeamShape ChooseTeams(const CpuExperts& experts, int num_threads) {
  return experts.up_panels() >= kMinPanelsPerThread * num_threads ? TeamShape{num_threads, 1}
                                                                       : TeamShape{1, num_threads};
}

// Rows [first_row, first_row + num_rows) of the layer, all of one expert; at most kChunkRows.
struct Unit {
  int64_t expert = -1;
  int64_t first_row = 0;
  int num_rows = 0;
  bool last_of_expert = false;
};

// Walks through the units of one team: the experts that have rows go round the teams in order of their ids.
class UnitWalk {
 public:
  UnitWalk(const ExpertBatches& batches, int team, int num_teams)
      : batches_(batches), team_(team), num_teams_(num_teams) {
    NextExpert();
  }

  // False at the end.
  bool Next(Unit* unit) {
    if (expert_ >= batches_.num_experts) return false;
    const int64_t end = batches_.expert_offsets[expert_ + 1];
    unit->expert = expert_;
    unit->first_row = row_;
    unit->num_rows = static_cast<int>(std::min(kChunkRows, end - row_));
    row_ += unit->num_rows;
    unit->last_of_expert = row_ == end;
    if (unit->last_of_expert) NextExpert();
    return true;
  }

 private:
  void NextExpert() {
    for (++expert_; expert_ < batches_.num_experts; ++expert_) {
      row_ = batches_.expert_offsets[expert_];
      const bool has_rows = batches_.expert_offsets[expert_ + 1] > row_;
      if (has_rows && (active_++ % num_teams_) == team_) return;
    }
  }

  const ExpertBatches& batches_;
  const int team_;
  const int num_teams_;
  int64_t expert_ = -1;
  int64_t row_ = 0;
  int active_ = 0;
};

int64_t InputBytes(int64_t hidden) { return PackedRowsElements(kChunkRows, hidden) * 2; }

// One thread's work in its team.
class ExpertWorker {
 public:
  ExpertWorker(Context& context, const float* in, const CpuExperts& experts, const ExpertBatches& batches,
               float* rows_out, TeamShape shape, int thread)
      : context_(context),
        kernels_(context.kernels),
        in_(in),
        experts_(experts),
        batches_(batches),
        rows_out_(rows_out),
        weighed_(batches.row_weights == nullptr ? nullptr : context.scratch.weighed_in.as<float>()),
        shape_(shape),
        rank_(thread % shape.team_size),
        team_(thread / shape.team_size),
        c_(context.PanelResults(thread)),
        expanded_(context.ExpandedChunk(thread)),
        rows_(context.RowPointers(thread)) {
    char* const scratch = context.scratch.team.as<char>() + team_ * context.scratch.team_bytes;
    inputs_[0] = reinterpret_cast<uint16_t*>(scratch);
    inputs_[1] = reinterpret_cast<uint16_t*>(scratch + InputBytes(experts.hidden));
    middle_ = scratch + 2 * InputBytes(experts.hidden);
  }

  void Run() {
    using Clock = std::chrono::steady_clock;
    UnitWalk walk(batches_, team_, shape_.num_teams);
    Unit unit;
    if (!walk.Next(&unit)) return;
    auto start = Clock::now();
    Gather(unit, inputs_[0]);
    Meet();
    for (int turn = 0;; turn ^= 1) {
      Up(unit, inputs_[turn]);
      Meet();
      Unit next = unit;
      const bool more = walk.Next(&next);
      Down(unit);
      const auto gather_start = Clock::now();
      if (more) Gather(next, inputs_[turn ^ 1]);
      const auto gather_time = Clock::now() - gather_start;
      Meet();
      if (unit.last_of_expert) {
        // Packing the next expert's rows is that expert's time.
        const auto end = Clock::now() - gather_time;
        if (rank_ == 0) batches_.expert_seconds[unit.expert] = std::chrono::duration<float>(end - start).count();
        start = end;
      }
      if (!more) return;
      unit = next;
    }
  }

 private:
  bool bf16() const { return experts_.dtype == DType::kBF16; }

  void Meet() {
    if (shape_.team_size > 1) context_.pool.Barrier();
  }

  const float* InputRow(int64_t row) const {
    return weighed_ == nullptr ? in_ + batches_.row_to_token[row] * experts_.hidden : weighed_ + row * experts_.hidden;
  }

  // Between an up panel's product and the intermediate rows.
  void Activate(int64_t expert, int64_t panel, int num_rows) {
    const int64_t first_col = panel * experts_.up_panel_cols();
    const float* const bias = experts_.up_panel_bias(expert, panel);
    if (bias != nullptr) kernels_.add_panel_bias(bias, num_rows, c_);
    const ExpertForm& form = experts_.form;
    if (bf16()) {
      kernels_.activate_panel_bf16(form.activation, form.limit, c_, num_rows, first_col, KSteps(experts_.intermediate),
                                   reinterpret_cast<uint16_t*>(middle_));
      return;
    }
    const int64_t cols = std::clamp<int64_t>(experts_.intermediate - first_col, 0, experts_.up_panel_cols());
    kernels_.activate_panel_f32(form.activation, form.limit, c_, num_rows, static_cast<int>(cols),
                                reinterpret_cast<float*>(middle_) + first_col, experts_.intermediate);
  }

  void Gather(const Unit& unit, uint16_t* to) {
    if (!bf16()) return;  // fp32 kernels read the rows where they are
    const int64_t steps = KSteps(experts_.hidden);
    int64_t first_row = 0, last_row = unit.num_rows, first_step = 0, last_step = steps;
    if (unit.num_rows >= 4 * shape_.team_size) {
      std::tie(first_row, last_row) = WorkerPool::Part(unit.num_rows, rank_, shape_.team_size);
    } else {
      std::tie(first_step, last_step) = WorkerPool::Part(steps, rank_, shape_.team_size);
    }
    for (int64_t r = first_row; r < last_row; ++r) {
      kernels_.pack_row(InputRow(unit.first_row + r), experts_.hidden, first_step, last_step,
                        to + r / kRowGroup * steps * kTileElements + r % kRowGroup * kStepK);
    }
  }

  // c = packed rows x panel.
  void MultiplyBf16(const uint16_t* rows, int num_rows, const char* panel, int64_t in) {
    const QuantizedFormat format = experts_.quantized.format;
    if (format == QuantizedFormat::kNone) {
      kernels_.gemm_bf16(rows, num_rows, reinterpret_cast<const uint16_t*>(panel), KSteps(in), c_);
      return;
    }
    const QuantizedPanel quantized = {reinterpret_cast<const uint8_t*>(panel), ChunkBytes(format),
                                      ExpandOf(kernels_, format), expanded_};
    kernels_.gemm_quantized(rows, num_rows, quantized, KSteps(in), c_);
  }

  void Up(const Unit& unit, const uint16_t* input) {
    const auto [first, last] = WorkerPool::Part(experts_.up_panels(), rank_, shape_.team_size);
    if (!bf16()) {
      for (int r = 0; r < unit.num_rows; ++r) rows_[r] = InputRow(unit.first_row + r);
    }
    for (int64_t p = first; p < last; ++p) {
      const char* const panel = experts_.up_panel(unit.expert, p);
      if (bf16()) {
        MultiplyBf16(input, unit.num_rows, panel, experts_.hidden);
      } else {
        kernels_.gemm_f32(rows_, unit.num_rows, reinterpret_cast<const float*>(panel), experts_.hidden, c_);
      }
      Activate(unit.expert, p, unit.num_rows);
    }
  }

  void Down(const Unit& unit) {
    const auto [first, last] = WorkerPool::Part(experts_.down_panels(), rank_, shape_.team_size);
    if (!bf16()) {
      for (int r = 0; r < unit.num_rows; ++r) {
        rows_[r] = reinterpret_cast<const float*>(middle_) + r * experts_.intermediate;
      }
    }
    for (int64_t p = first; p < last; ++p) {
      const char* const panel = experts_.down_panel(unit.expert, p);
      if (bf16()) {
        MultiplyBf16(reinterpret_cast<const uint16_t*>(middle_), unit.num_rows, panel, experts_.intermediate);
      } else {
        kernels_.gemm_f32(rows_, unit.num_rows, reinterpret_cast<const float*>(panel), experts_.intermediate, c_);
      }
      const int64_t first_col = p * kPanelCols;
      const int cols = static_cast<int>(std::min<int64_t>(kPanelCols, experts_.hidden - first_col));
      float* const out = rows_out_ + unit.first_row * experts_.hidden + first_col;
      const float* const bias = experts_.down_panel_bias(unit.expert, p);
      if (bias == nullptr && batches_.num_rows * experts_.hidden >= kStreamElements) {
        kernels_.stream_panel(c_, unit.num_rows, cols, out, experts_.hidden);
      } else {
        kernels_.store_panel(c_, unit.num_rows, cols, bias, false, out, experts_.hidden);
      }
    }
  }

  Context& context_;
  const Kernels& kernels_;
  const float* const in_;
  const CpuExperts& experts_;
  const ExpertBatches& batches_;
  float* const rows_out_;
  const float* const weighed_;  // input rows times their router weights; null: as they are
  const TeamShape shape_;
  const int rank_;
  const int team_;
  float* const c_;
  uint16_t* const expanded_;
  const float** const rows_;
  uint16_t* inputs_[2];  // packed rows of this unit and the next
  char* middle_;         // activated rows of this unit, packed or fp32
};

// Every expert input times its router weight.
void WeighInputs(Context& context, const float* in, const CpuExperts& experts, const ExpertBatches& batches) {
  const int64_t hidden = experts.hidden;
  CHECK(batches.num_rows <= context.sizes.weighed_rows);
  float* const weighed = context.scratch.weighed_in.as<float>();
  context.pool.Run([&](int thread) {
    const auto [first, last] = WorkerPool::Part(batches.num_rows, thread, context.pool.num_threads());
    for (int64_t row = first; row < last; ++row) {
      float* const to = weighed + row * hidden;
      std::copy_n(in + batches.row_to_token[row] * hidden, hidden, to);
      context.kernels.scale(batches.row_weights[row], hidden, to);
    }
  });
}

}  // namespace

// Two packed inputs and the intermediate rows, in the wider of their two forms.
int64_t ExpertTeamScratchBytes(const ScratchSizes& sizes) {
  const int64_t middle = std::max(kChunkRows * sizes.expert_intermediate * 4, InputBytes(sizes.expert_intermediate));
  return CeilDiv(2 * InputBytes(sizes.expert_hidden) + middle, 4096) * 4096;
}

void RunExpertMlp(Context& context, const float* in, const CpuExperts& experts, const ExpertBatches& batches,
                  float* rows_out) {
  CHECK(experts.hidden <= context.scratch.sizes.expert_hidden);
  CHECK(experts.intermediate <= context.scratch.sizes.expert_intermediate);
  std::fill_n(batches.expert_seconds, batches.num_experts, 0.0f);
  if (batches.num_rows == 0) return;
  if (batches.row_weights != nullptr) WeighInputs(context, in, experts, batches);
  const TeamShape shape = ChooseTeams(experts, context.pool.num_threads());
  context.pool.Run([&](int thread) {
    ExpertWorker(context, in, experts, batches, rows_out, shape, thread).Run();
  });
}

}  // namespace switchyard::cpu
