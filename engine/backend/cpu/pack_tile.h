// Rows of a weight matrix on their way into the tiles of a panel (layout.h).
#ifndef SWITCHYARD_ENGINE_BACKEND_CPU_PACK_TILE_H_
#define SWITCHYARD_ENGINE_BACKEND_CPU_PACK_TILE_H_

#include <cstdint>

#include "engine/backend/cpu/kernels.h"
#include "engine/base/dtype.h"
#include "engine/base/quantized.h"

namespace switchyard::cpu {

// `num_rows` (up to 16) rows [num_rows][in] of `dtype` to tile 0 or 1 of the panel. Returns how many elements are NaN
// or infinite.
int64_t PackTile(const Kernels& kernels, const char* rows, int num_rows, int64_t in, DType dtype, char* panel,
                 int tile);

// The same of rows as TensorReader::ReadQuantized gives them.
// REQUIRES: in fp8, form.block_cols is a multiple of kChunkK.
void PackQuantizedTile(const uint8_t* codes, const void* scales, int num_rows, int64_t in, const QuantizedForm& form,
                       uint8_t* panel, int tile);

// NaN and infinities.
int64_t CountNonfinite(const void* elements, int64_t count, DType dtype);

}  // namespace switchyard::cpu

#endif  // SWITCHYARD_ENGINE_BACKEND_CPU_PACK_TILE_H_
