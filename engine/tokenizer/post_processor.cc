#include "engine/tokenizer/post_processor.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/tokenizer/tokenizer_json.h"

namespace switchyard {
namespace {

constexpr size_t kMaxAddedTokens = 64;

struct Around {
  std::vector<int32_t> before;
  std::vector<int32_t> after;
};

absl::Status AppendIds(const JsonField& special_token, std::vector<int32_t>* ids) {
  const JsonField list = special_token.Member("ids");
  if (!list.IsArray()) return list.Error("must be a list");
  for (size_t i = 0; i < list.Size(); ++i) {
    ASSIGN_OR_RETURN(auto id, list.Element(i).Int(0, kMaxTokenId));
    ids->push_back(id);
  }
  return absl::OkStatus();
}

// {"single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}], "special_tokens": {"<s>": {"ids": [1]}}}
absl::StatusOr<Around> MakeTemplate(const JsonField& field) {
  const JsonField single = field.Member("single");
  if (!single.IsArray()) return single.Error("must be a list");
  Around around;
  bool seen_text = false;
  for (size_t i = 0; i < single.Size(); ++i) {
    const JsonField item = single.Element(i);
    if (const JsonField sequence = item.Member("Sequence"); !sequence.IsNull()) {
      ASSIGN_OR_RETURN(auto id, sequence.Member("id").String());
      if (id != "A") return sequence.Member("id").Error("must be A: there is only one text");
      if (seen_text) return single.Error("must hold the Sequence A once");
      seen_text = true;
      continue;
    }
    ASSIGN_OR_RETURN(auto name, item.Member("SpecialToken").Member("id").String());
    const JsonField token = field.Member("special_tokens").Member(name);
    RETURN_IF_ERROR(AppendIds(token, seen_text ? &around.after : &around.before));
  }
  if (!seen_text) return single.Error("must hold the Sequence A once");
  return around;
}

// {"cls": ["<s>", 0], "sep": ["</s>", 2]}
absl::StatusOr<Around> MakeClsSep(const JsonField& field) {
  Around around;
  for (const auto& [key, ids] : {std::pair{"cls", &around.before}, std::pair{"sep", &around.after}}) {
    const JsonField pair = field.Member(key);
    if (pair.Size() != 2) return pair.Error("must be [token, id]");
    ASSIGN_OR_RETURN(auto id, pair.Element(1).Int(0, kMaxTokenId));
    ids->push_back(id);
  }
  return around;
}

// Changes offsets only, which nobody here asks for.
absl::StatusOr<Around> MakeByteLevel(const JsonField&) { return Around{}; }

struct Kind {
  const char* type;
  absl::StatusOr<Around> (*make)(const JsonField& field);
};

constexpr Kind kKinds[] = {
    {"TemplateProcessing", MakeTemplate},
    {"ByteLevel", MakeByteLevel},
    {"RobertaProcessing", MakeClsSep},
    {"BertProcessing", MakeClsSep},
};

}  // namespace

absl::StatusOr<PostProcessor> PostProcessor::Create(const JsonField& field) {
  ASSIGN_OR_RETURN(auto parts, ListParts(field, "processors"));
  PostProcessor processor;
  for (const JsonField& part : parts) {
    ASSIGN_OR_RETURN(auto around, MakePart<Around>(part, kKinds));
    processor.before_.insert(processor.before_.begin(), around.before.begin(), around.before.end());
    processor.after_.insert(processor.after_.end(), around.after.begin(), around.after.end());
    if (processor.before_.size() + processor.after_.size() > kMaxAddedTokens) {
      return field.Error(absl::StrCat("adds more than ", kMaxAddedTokens, " tokens"));
    }
  }
  return processor;
}

std::vector<int32_t> PostProcessor::Apply(const std::vector<int32_t>& ids) const {
  std::vector<int32_t> out = before_;
  out.insert(out.end(), ids.begin(), ids.end());
  out.insert(out.end(), after_.begin(), after_.end());
  return out;
}

}  // namespace switchyard
