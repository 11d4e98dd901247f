#include "engine/tokenizer/splitting.h"

#include <algorithm>
#include <string>

#include "engine/base/status_macros.h"

namespace switchyard {
namespace {

struct Part {
  Span span;
  bool is_match;
};

// The whole text as matches and what lies between them. Empty matches count; empty text between matches does not.
std::vector<Part> CoverText(size_t text_size, const std::vector<Span>& matches, bool invert) {
  std::vector<Part> parts;
  parts.reserve(matches.size() * 2 + 1);
  size_t covered = 0;
  for (const Span& match : matches) {
    if (covered < match.begin) parts.push_back({{covered, match.begin}, invert});
    parts.push_back({match, !invert});
    covered = match.end;
  }
  if (covered < text_size || parts.empty()) parts.push_back({{covered, text_size}, invert});
  return parts;
}

// Lets each match that follows something else join it.
template <typename Joins>
std::vector<Part> JoinForward(const std::vector<Part>& parts, Joins joins) {
  std::vector<Part> joined;
  bool previous_is_match = false;
  for (const Part& part : parts) {
    if (!joined.empty() && joins(part.is_match, previous_is_match)) {
      joined.back().span.end = part.span.end;
    } else {
      joined.push_back(part);
    }
    previous_is_match = part.is_match;
  }
  return joined;
}

std::vector<Part> JoinBackward(const std::vector<Part>& parts) {
  std::vector<Part> joined;  // last part first
  bool next_is_match = false;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    if (!joined.empty() && part->is_match && !next_is_match) {
      joined.back().span.begin = part->span.begin;
    } else {
      joined.push_back(*part);
    }
    next_is_match = part->is_match;
  }
  std::reverse(joined.begin(), joined.end());
  return joined;
}

std::vector<Part> ApplyBehavior(std::vector<Part> parts, SplitBehavior behavior) {
  switch (behavior) {
    case SplitBehavior::kIsolated:
      return parts;
    case SplitBehavior::kRemoved:
      parts.erase(std::remove_if(parts.begin(), parts.end(), [](const Part& part) { return part.is_match; }),
                  parts.end());
      return parts;
    case SplitBehavior::kContiguous:
      return JoinForward(parts, [](bool is_match, bool previous_is_match) { return is_match == previous_is_match; });
    case SplitBehavior::kMergedWithPrevious:
      return JoinForward(parts, [](bool is_match, bool previous_is_match) { return is_match && !previous_is_match; });
    case SplitBehavior::kMergedWithNext:
      return JoinBackward(parts);
  }
  return parts;
}

}  // namespace

absl::StatusOr<SplitBehavior> ParseSplitBehavior(const JsonField& field) {
  ASSIGN_OR_RETURN(auto name, field.String());
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return field.Error("is " + Quote(name) +
                     "; supported are Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
}

void SplitAt(const Piece& piece, const std::vector<Span>& matches, SplitBehavior behavior, bool invert,
             std::vector<Piece>* out) {
  for (const Part& part : ApplyBehavior(CoverText(piece.text.size(), matches, invert), behavior)) {
    const size_t size = part.span.end - part.span.begin;
    if (size == 0) continue;
    const size_t at_start = piece.at_start > part.span.begin ? std::min(piece.at_start - part.span.begin, size) : 0;
    out->push_back({piece.text.substr(part.span.begin, size), at_start, -1});
  }
}

}  // namespace switchyard
