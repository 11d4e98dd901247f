// What a template and its rendering may cost. Templates come from model folders, the values in them from clients:
// both are hostile until proven otherwise.
#ifndef SWITCHYARD_ENGINE_JINJA_LIMITS_H_
#define SWITCHYARD_ENGINE_JINJA_LIMITS_H_

#include <cstddef>
#include <cstdint>

namespace switchyard::jinja {

inline constexpr size_t kMaxTemplateBytes = size_t{1} << 20;
inline constexpr int kMaxSyntaxDepth = 100;          // of nested blocks and parentheses
inline constexpr int kMaxExpressionDepth = 200;      // of the operators of one expression: a + b + c has 3
inline constexpr int kMaxCallDepth = 450;            // of nested evaluations, through macros too
inline constexpr int kMaxValueDepth = 100;           // of lists in lists
inline constexpr int64_t kMaxRangeLength = 100'000;  // as the sandbox of jinja2

// Of one rendering.
struct RenderLimits {
  int64_t max_steps = 10'000'000;                   // a second or two
  int64_t max_allocated_chars = int64_t{64} << 20;  // of all strings made on the way, 4 bytes each
  int64_t max_output_bytes = int64_t{16} << 20;
};

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_LIMITS_H_
