// Which blocks of a model the CUDA backend computes. Needs neither CUDA nor a GPU, so that tools without either can say
// it too.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_SERVED_BLOCKS_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_SERVED_BLOCKS_H_

#include "absl/status/status.h"
#include "engine/backend/backend.h"

namespace switchyard::cuda {

// UNIMPLEMENTED: names what the CUDA backend does not compute of this layer. See Backend::CheckServed.
absl::Status CheckServedByCuda(const LayerBlocks& blocks);

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_SERVED_BLOCKS_H_
