// Quantized weights in plain loops: the oracle of the kernels that expand them.
#ifndef SWITCHYARD_TESTS_REFERENCE_QUANTIZED_H_
#define SWITCHYARD_TESTS_REFERENCE_QUANTIZED_H_

#include <cstdint>
#include <vector>

#include "engine/base/quantized.h"

namespace switchyard::reference {

// The numbers of the formats (OCP FP8 E4M3; OCP MX E2M1 and E8M0), as their definitions have them.
double E4m3(uint8_t code);
double E2m1(uint8_t code);  // the low four bits
double E8m0(uint8_t code);

// A code times its scale in fp32, rounded to bfloat16 to nearest even.
uint16_t Fp8AsBf16(uint8_t code, float scale);
uint16_t Mxfp4AsBf16(uint8_t code, uint8_t scale);

// The first `steps` steps of a chunk of a quantized panel, as the comment of engine/backend/cpu/layout.h describes both
// layouts: [2][steps][16][16][2].
std::vector<uint16_t> ExpandChunk(QuantizedFormat format, const std::vector<uint8_t>& chunk, int64_t steps);

}  // namespace switchyard::reference

#endif  // SWITCHYARD_TESTS_REFERENCE_QUANTIZED_H_
