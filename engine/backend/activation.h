// What stands between the two projections of an MLP. Included by kernels compiled for one instruction set: no standard
// library here but <cstdint>.
#ifndef SWITCHYARD_ENGINE_BACKEND_ACTIVATION_H_
#define SWITCHYARD_ENGINE_BACKEND_ACTIVATION_H_

#include <cstdint>

namespace switchyard {

// Gated: of a gate and an up projection. Ungated: of one projection, which is called up.
enum class Activation : uint8_t {
  kSilu,           // gated: silu(gate) * up
  kClampedSwiglu,  // gated: (clamp(up, -limit, limit) + 1) * g * sigmoid(1.702 g), g = min(gate, limit)   (gpt-oss)
  kRelu,           // max(up, 0)   (Switch Transformers)
  kGeluTanh,       // 0.5 up (1 + tanh(sqrt(2 / pi) (up + 0.044715 up^3)))   (V-MoE)
  kTanh,           // tanh(up)   (before V-MoE's head)
};

constexpr bool IsGated(Activation activation) {
  return activation == Activation::kSilu || activation == Activation::kClampedSwiglu;
}

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_BACKEND_ACTIVATION_H_
