// Puts the tokens that a model expects around every text: "<s> ... </s>".
#ifndef SWITCHYARD_ENGINE_TOKENIZER_POST_PROCESSOR_H_
#define SWITCHYARD_ENGINE_TOKENIZER_POST_PROCESSOR_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/json_field.h"

namespace switchyard {

// Immutable.
class PostProcessor {
 public:
  // Reads the "post_processor" member; null gives one that adds nothing.
  // INVALID_ARGUMENT: a type that is not supported, a bad field, a template without exactly one $A.
  static absl::StatusOr<PostProcessor> Create(const JsonField& field);

  std::vector<int32_t> Apply(const std::vector<int32_t>& ids) const;

 private:
  std::vector<int32_t> before_;
  std::vector<int32_t> after_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_POST_PROCESSOR_H_
