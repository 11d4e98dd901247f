// Element types of weights and caches, spelled as in safetensors and Hugging Face configs.
#ifndef SWITCHYARD_ENGINE_BASE_DTYPE_H_
#define SWITCHYARD_ENGINE_BASE_DTYPE_H_

#include <cstdint>

namespace switchyard {

enum class DType : uint8_t { kF32, kF16, kBF16 };

inline int64_t DTypeBytes(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

inline const char* DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kF32: return "float32";
    case DType::kF16: return "float16";
    case DType::kBF16: return "bfloat16";
  }
  return "unknown";
}

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_BASE_DTYPE_H_
