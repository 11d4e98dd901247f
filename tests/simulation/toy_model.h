// A language model in a few lines of hashing, exact and cheap, for which any wrong KV slot gives another next token.
//
//   chain(p)  = hash(chain(p-1), token(p), p)      what one KV slot holds: depends on everything before it
//   fold(p)   = hash(fold(p-1), chain(p))          what attention reads: every slot
//   next      = draw(fold(p), sampling seed, p+1)
#ifndef SWITCHYARD_TESTS_SIMULATION_TOY_MODEL_H_
#define SWITCHYARD_TESTS_SIMULATION_TOY_MODEL_H_

#include <cstdint>

#include "engine/sampling_params.h"

namespace switchyard::simulation {

inline constexpr int32_t kVocabSize = 48;
inline constexpr int32_t kEosId = 0;
inline constexpr int32_t kStopId = 1;

inline uint64_t Hash(uint64_t a, uint64_t b) {
  uint64_t hash = (a ^ (b * 0x9e3779b97f4a7c15u)) * 0xff51afd7ed558ccdu;
  hash ^= hash >> 29;
  hash *= 0xc4ceb9fe1a85ec53u;
  return hash ^ (hash >> 32);
}

inline uint64_t ExtendChain(uint64_t chain, int32_t token, int32_t position) {
  return Hash(chain, (static_cast<uint64_t>(static_cast<uint32_t>(position)) << 32) | static_cast<uint32_t>(token));
}

inline uint64_t ExtendFold(uint64_t fold, uint64_t chain) { return Hash(fold, chain); }

struct Draw {
  int32_t token = 0;
  bool finite = true;
};

// One of `nonfinite_one_in` draws is a non-finite logit; 0: none.
inline Draw DrawToken(uint64_t fold, const SamplingParams& sampling, int32_t position, uint64_t nonfinite_one_in) {
  const uint64_t hash = Hash(Hash(fold, sampling.seed), static_cast<uint64_t>(position));
  if (nonfinite_one_in != 0 && (hash >> 32) % nonfinite_one_in == 0) return {.finite = false};
  return {.token = static_cast<int32_t>(hash % kVocabSize)};
}

}  // namespace switchyard::simulation

#endif  // SWITCHYARD_TESTS_SIMULATION_TOY_MODEL_H_
