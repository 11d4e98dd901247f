#include "engine/tokenizer/metaspace.h"

#include "engine/base/status_macros.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

absl::StatusOr<Metaspace::Prepend> ParsePrepend(const JsonField& field) {
  const JsonField scheme = field.Member("prepend_scheme");
  ASSIGN_OR_RETURN(auto name, scheme.StringOr("always"));
  // The older spelling of "never".
  ASSIGN_OR_RETURN(const bool add_prefix_space, field.Member("add_prefix_space").BoolOr(true));
  if (name == "never" || (!add_prefix_space && scheme.IsNull())) return Metaspace::Prepend::kNever;
  if (!add_prefix_space) return scheme.Error("does not fit add_prefix_space = false");
  if (name == "first") return Metaspace::Prepend::kFirst;
  if (name == "always") return Metaspace::Prepend::kAlways;
  return scheme.Error("is " + Quote(name) + "; supported are first, never, always");
}

}  // namespace

absl::StatusOr<Metaspace> Metaspace::Parse(const JsonField& field) {
  ASSIGN_OR_RETURN(auto replacement, field.Member("replacement").Character());
  ASSIGN_OR_RETURN(auto prepend, ParsePrepend(field));
  ASSIGN_OR_RETURN(auto split, field.Member("split").BoolOr(true));
  Metaspace metaspace;
  AppendUtf8(replacement, &metaspace.replacement);
  metaspace.prepend = prepend;
  metaspace.split = split;
  return metaspace;
}

}  // namespace switchyard
