// Streaming attention over Simd, included by kernels_inl.h. Bytes = keys and values once per KV head and row block;
// flops = 4 * head_dim per (query, key).
//
// Keys are taken 64 at a time (four groups, aligned to absolute positions) with a running maximum, so the order of
// every addition depends on the row's position alone. A block of keys that a row must not see leaves its state exactly
// as it was: the masked scores are -inf, their weights 0, and the correction factor exp(0) = 1. A sink is where a row
// starts from: a key that was seen before all others and had no value.

constexpr int kBlockGroups = 4;
constexpr int kBlockKeys = kBlockGroups * kKeyGroup;

// The 16 positions of one group of the task's sequence.
struct KeyGroup {
  const char* keys = nullptr;
  const char* values = nullptr;
  int32_t first_position = 0;
};

inline KeyGroup FindGroup(const AttentionTask& task, int32_t group) {
  const KvLayout& layout = *task.layout;
  const int32_t block = group / layout.groups_per_block;
  const int32_t within = group % layout.groups_per_block;
  KeyGroup found;
  found.keys = task.cache + task.block_table[block] * layout.block_stride + within * layout.group_stride;
  found.values = found.keys + layout.keys_bytes;
  found.first_position = group * kKeyGroup;
  return found;
}

inline int32_t FirstVisible(const AttentionTask& task, int32_t position) {
  if (task.num_keys > 0) return 0;
  if (task.chunk_size > 0) return position / task.chunk_size * task.chunk_size;
  const int32_t first = task.sliding_window > 0 ? position - task.sliding_window + 1 : 0;
  return first > task.first_key ? first : task.first_key;
}

inline int32_t LastVisible(const AttentionTask& task, int32_t position) {
  return task.num_keys > 0 ? task.num_keys - 1 : position;
}

// Adds to 16 scores what stands for the distances of their keys.
inline void AddRelativeBias(const AttentionTask& task, int row, int32_t first_distance, float* scores) {
  const int32_t limit = task.relative_max_distance;
  const float* const bias = task.relative_bias + row % task.heads_per_kv * (int64_t{2} * limit + 1) + limit;
  for (int j = 0; j < kKeyGroup; ++j) {
    const int32_t distance = first_distance + j;
    scores[j] += bias[distance < -limit ? -limit : distance > limit ? limit : distance];
  }
}

// Scales the 16 raw scores of one row against one group and hides the keys that the row must not see.
inline void ScaleAndMask(const AttentionTask& task, const KeyGroup& group, int row, int32_t position, float* scores) {
  const Simd::F scale = Simd::Set(task.scale);
  for (int i = 0; i < kKeyGroup; i += kW) Simd::Store(scores + i, Simd::Mul(Simd::Load(scores + i), scale));
  if (task.relative_bias != nullptr) AddRelativeBias(task, row, group.first_position - position, scores);
  const int32_t first = FirstVisible(task, position);
  const int32_t last = LastVisible(task, position);
  if (group.first_position >= first && group.first_position + kKeyGroup - 1 <= last) return;
  for (int j = 0; j < kKeyGroup; ++j) {
    const int32_t key = group.first_position + j;
    if (key < first || key > last) scores[j] = -__builtin_inff();
  }
}

// Scores become weights; returns the factor for what was summed up so far. The sum stays spread over the lanes.
inline float UpdateSoftmax(float* scores, float* running_max, Simd::F* running_sum) {
  Simd::F largest = Simd::Set(*running_max);
  for (int i = 0; i < kBlockKeys; i += kW) largest = Simd::Max(largest, Simd::Load(scores + i));
  const float new_max = Simd::MaxLane(largest);
  const Simd::F shift = Simd::Set(new_max);
  const Simd::F correction = Exp(Simd::Sub(Simd::Set(*running_max), shift));
  Simd::F sum = Simd::Mul(*running_sum, correction);
  for (int i = 0; i < kBlockKeys; i += kW) {
    const Simd::F weight = Exp(Simd::Sub(Simd::Load(scores + i), shift));
    Simd::Store(scores + i, weight);
    sum = Simd::Add(sum, weight);
  }
  *running_sum = sum;
  *running_max = new_max;
  return Simd::First(correction);
}

constexpr float kNoMaximum = -1e30f;  // finite, so that the first correction is exp(-huge) = 0 and not NaN

// The running maximum and sum before the first key, of row `row` of the task.
inline void StartSoftmax(const AttentionTask& task, int row, float* running_max, Simd::F* running_sum) {
  *running_max = kNoMaximum;
  *running_sum = Simd::Set(0.0f);
  if (task.sinks == nullptr) return;
  const float one = 1.0f;
  *running_max = task.sinks[row % task.heads_per_kv];
  *running_sum = Simd::LoadN(&one, 1);
}

// Raw scores of kRows query rows against the 16 latents of one group, whose elements lie side by side: lanes run over
// the elements, four keys at a time.
template <int kRows, bool kBf16>
inline void ScoreLatents(const KvLayout& layout, const KeyGroup& group, const float* const* q, float* scores) {
  constexpr int kKeys = 4;
  for (int first = 0; first < kKeyGroup; first += kKeys) {
    Simd::F acc[kRows][kKeys];
    for (int r = 0; r < kRows; ++r) {
      for (int j = 0; j < kKeys; ++j) acc[r][j] = Simd::Set(0.0f);
    }
    for (int d = 0; d < layout.head_dim; d += kW) {
      Simd::F keys[kKeys];
      for (int j = 0; j < kKeys; j += 2) {
        if constexpr (kBf16) {
          Simd::LoadPairs(reinterpret_cast<const uint16_t*>(group.keys) + ((first + j) / 2 * layout.dim_pad + d) * 2,
                          &keys[j], &keys[j + 1]);
        } else {
          const float* const from = reinterpret_cast<const float*>(group.keys) + (first + j) * layout.dim_pad + d;
          keys[j] = Simd::Load(from);
          keys[j + 1] = Simd::Load(from + layout.dim_pad);
        }
      }
      for (int r = 0; r < kRows; ++r) {
        const Simd::F x = Simd::LoadN(q[r] + d, layout.head_dim - d);
        for (int j = 0; j < kKeys; ++j) acc[r][j] = Simd::Fma(x, keys[j], acc[r][j]);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int j = 0; j < kKeys; ++j) scores[r * kBlockKeys + first + j] = Simd::Sum(acc[r][j]);
    }
  }
}

// The same over keys that lie across: lanes run over the keys.
template <int kRows, bool kBf16>
inline void ScoreKeys(const KvLayout& layout, const KeyGroup& group, const float* const* q, float* scores) {
  Simd::F acc[kRows][kTileVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kTileVectors; ++v) acc[r][v] = Simd::Set(0.0f);
  }
  for (int d = 0; d < layout.head_dim / 2; ++d) {
    for (int v = 0; v < kTileVectors; ++v) {
      Simd::F even, odd;
      if constexpr (kBf16) {
        Simd::LoadPairs(reinterpret_cast<const uint16_t*>(group.keys) + (d * kKeyGroup + v * kW) * 2, &even, &odd);
      } else {
        const float* const keys = reinterpret_cast<const float*>(group.keys) + 2 * d * kKeyGroup + v * kW;
        even = Simd::Load(keys);
        odd = Simd::Load(keys + kKeyGroup);
      }
      for (int r = 0; r < kRows; ++r) {
        acc[r][v] = Simd::Fma(Simd::Set(q[r][2 * d]), even, acc[r][v]);
        acc[r][v] = Simd::Fma(Simd::Set(q[r][2 * d + 1]), odd, acc[r][v]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kTileVectors; ++v) Simd::Store(scores + r * kBlockKeys + v * kW, acc[r][v]);
  }
}

// The generic implementation: fp32 arithmetic over float32 or bfloat16 caches.
template <int kRows, bool kBf16, bool kLatent>
inline void AttendRows(const AttentionTask& task, int first_row) {
  const KvLayout& layout = *task.layout;
  const int32_t dim_pad = layout.dim_pad;
  const int32_t value_pad = kLatent ? (layout.value_dim + kW - 1) / kW * kW : dim_pad;
  float* const scores = static_cast<float*>(task.scratch);          // [kRows][kBlockKeys]
  float* const sums = scores + Simd::kAttentionRows * kBlockKeys;   // [kRows][dim_pad]
  const float* q[kRows];
  int32_t position[kRows];
  float running_max[kRows], correction[kRows];
  Simd::F running_sum[kRows];
  for (int r = 0; r < kRows; ++r) {
    const int row = first_row + r;
    const int token = row / task.heads_per_kv;
    q[r] = task.q + token * task.q_stride + (row % task.heads_per_kv) * layout.head_dim;
    position[r] = task.first_position + token;
    StartSoftmax(task, row, &running_max[r], &running_sum[r]);
    for (int d = 0; d < value_pad; d += kW) Simd::Store(sums + r * dim_pad + d, Simd::Set(0.0f));
  }
  const int32_t last_group = LastVisible(task, position[kRows - 1]) / kKeyGroup;
  const int32_t first_block = FirstVisible(task, position[0]) / kBlockKeys;
  for (int32_t block = first_block; block * kBlockGroups <= last_group; ++block) {
    KeyGroup groups[kBlockGroups];
    int num_groups = 0;
    for (; num_groups < kBlockGroups && block * kBlockGroups + num_groups <= last_group; ++num_groups) {
      groups[num_groups] = FindGroup(task, block * kBlockGroups + num_groups);
    }
    for (int g = 0; g < kBlockGroups; ++g) {
      float* const group_scores = scores + g * kKeyGroup;
      if (g >= num_groups) {
        for (int r = 0; r < kRows; ++r) {
          for (int i = 0; i < kKeyGroup; i += kW) {
            Simd::Store(group_scores + r * kBlockKeys + i, Simd::Set(-__builtin_inff()));
          }
        }
        continue;
      }
      if constexpr (kLatent) {
        ScoreLatents<kRows, kBf16>(layout, groups[g], q, group_scores);
      } else {
        ScoreKeys<kRows, kBf16>(layout, groups[g], q, group_scores);
      }
      for (int r = 0; r < kRows; ++r) {
        ScaleAndMask(task, groups[g], first_row + r, position[r], group_scores + r * kBlockKeys);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      correction[r] = UpdateSoftmax(scores + r * kBlockKeys, &running_max[r], &running_sum[r]);
    }
    for (int d = 0; d < value_pad; d += kW) {
      Simd::F acc[kRows];
      for (int r = 0; r < kRows; ++r) {
        acc[r] = Simd::Mul(Simd::Load(sums + r * dim_pad + d), Simd::Set(correction[r]));
      }
      for (int g = 0; g < num_groups; ++g) {
        for (int j = 0; j < kKeyGroup; j += 2) {
          Simd::F even, odd;
          if constexpr (kBf16) {
            Simd::LoadPairs(reinterpret_cast<const uint16_t*>(groups[g].values) + (j / 2 * dim_pad + d) * 2, &even,
                            &odd);
          } else {
            const float* values = reinterpret_cast<const float*>(groups[g].values) + j * dim_pad + d;
            even = Simd::Load(values);
            odd = Simd::Load(values + dim_pad);
          }
          for (int r = 0; r < kRows; ++r) {
            const float* weights = scores + r * kBlockKeys + g * kKeyGroup + j;
            acc[r] = Simd::Fma(Simd::Set(weights[0]), even, acc[r]);
            acc[r] = Simd::Fma(Simd::Set(weights[1]), odd, acc[r]);
          }
        }
      }
      for (int r = 0; r < kRows; ++r) Simd::Store(sums + r * dim_pad + d, acc[r]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    const int row = first_row + r;
    float* out = task.out + row / task.heads_per_kv * task.out_stride + row % task.heads_per_kv * layout.value_dim;
    const Simd::F total = Simd::Set(Simd::Sum(running_sum[r]));
    for (int d = 0; d < layout.value_dim; d += kW) {
      Simd::StoreN(out + d, Simd::Div(Simd::Load(sums + r * dim_pad + d), total), layout.value_dim - d);
    }
  }
}

template <bool kBf16, bool kLatent>
inline void AttendAs(const AttentionTask& task) {
  const int rows = task.num_tokens * task.heads_per_kv;
  int row = 0;
  for (; row + Simd::kAttentionRows <= rows; row += Simd::kAttentionRows) {
    AttendRows<Simd::kAttentionRows, kBf16, kLatent>(task, row);
  }
  for (; row < rows; ++row) AttendRows<1, kBf16, kLatent>(task, row);
}

void Attend(const AttentionTask& task) {
  const bool bf16 = task.layout->dtype == DType::kBF16;
  if (task.layout->is_latent) return bf16 ? AttendAs<true, true>(task) : AttendAs<false, true>(task);
  return bf16 ? AttendAs<true, false>(task) : AttendAs<false, false>(task);
}
