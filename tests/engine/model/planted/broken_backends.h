// Backends on the CPU that do one thing wrong. `inner` outlives them.
#ifndef SWITCHYARD_TESTS_ENGINE_MODEL_PLANTED_BROKEN_BACKENDS_H_
#define SWITCHYARD_TESTS_ENGINE_MODEL_PLANTED_BROKEN_BACKENDS_H_

#include <cstdint>
#include <memory>

#include "engine/backend/backend.h"

namespace switchyard::testing {

enum class RouterFault : uint8_t {
  kNone,                // for a test of this backend itself
  kBiasedWeights,       // weights from the scores with the choice bias
  kGroupsMaskedByZero,  // experts of groups that are out get 0 instead of being left out
};

// Of routers with groups and a choice bias (DeepSeek-V3).
std::unique_ptr<Backend> MakeBrokenRouter(Backend* inner, RouterFault fault);
// JetMoE's query heads read the KV heads in runs of top_k instead of in turn.
std::unique_ptr<Backend> MakeBrokenHeads(Backend* inner);
// Arctic's MoE reads what follows the attention instead of what it read.
std::unique_ptr<Backend> MakeBrokenArctic(Backend* inner);

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_ENGINE_MODEL_PLANTED_BROKEN_BACKENDS_H_
