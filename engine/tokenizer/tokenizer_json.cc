#include "engine/tokenizer/tokenizer_json.h"

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/json.h"
#include "engine/base/status_macros.h"

namespace switchyard {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxEntries = 2'000'000;
constexpr JsonLimits kLimits = {.max_bytes = kMaxTokenizerJsonBytes, .max_depth = 64, .max_values = 10'000'000};

absl::Status Invalid(const std::string& what) { return absl::InvalidArgumentError(what); }

// Sends model.vocab and model.merges to vectors and builds a document from the rest.
class Reader : public JsonVisitor {
 public:
  Reader(std::vector<VocabularyEntry>* vocab, std::vector<std::pair<std::string, std::string>>* merges, Json* rest)
      : vocab_(vocab), merges_(merges), rest_(rest) {}

  absl::Status Null() override { return Add(nullptr); }
  absl::Status Bool(bool value) override { return Add(value); }
  absl::Status Negative(int64_t value) override { return where_ == Where::kVocab ? BadId() : Add(value); }
  absl::Status Unsigned(uint64_t value) override { return where_ == Where::kVocab ? AddToken(value) : Add(value); }
  absl::Status Real(double value) override { return Add(value); }
  absl::Status String(std::string value) override {
    if (where_ == Where::kMerges) return AddMergeText(value);
    if (where_ == Where::kPair) return AddToPair(std::move(value));
    return Add(std::move(value));
  }

  absl::Status BeginObject() override {
    if (where_ != Where::kElsewhere) return NoPlace();
    return Open(Json::object(), Where::kVocab, "vocab");
  }
  absl::Status BeginArray() override {
    if (where_ == Where::kMerges) {
      where_ = Where::kPair;
      pair_.clear();
      return absl::OkStatus();
    }
    if (where_ != Where::kElsewhere) return NoPlace();
    return Open(Json::array(), Where::kMerges, "merges");
  }
  absl::Status EndObject() override { return Close(); }
  absl::Status EndArray() override { return where_ == Where::kPair ? EndPair() : Close(); }

  absl::Status Key(std::string key) override {
    key_ = std::move(key);
    if (where_ != Where::kElsewhere) return absl::OkStatus();  // Vocabulary finds tokens given twice
    if (open_.back().value->contains(key_)) return Invalid("duplicate key " + Quote(key_));
    return absl::OkStatus();
  }

 private:
  enum class Where { kElsewhere, kVocab, kMerges, kPair };  // kPair: inside of one ["a", "b"] of the merges
  struct Container {
    Json* value;
    std::string name;  // its key; "" for the document and for elements of a list
  };

  Json* Place(Json value) {
    if (open_.empty()) return &(*rest_ = std::move(value));
    Json& parent = *open_.back().value;
    if (!parent.is_array()) return &(parent[key_] = std::move(value));
    parent.push_back(std::move(value));
    return &parent.back();
  }

  absl::Status Add(Json value) {
    if (where_ != Where::kElsewhere) return NoPlace();
    RETURN_IF_ERROR(Count());
    Place(std::move(value));
    return absl::OkStatus();
  }

  absl::Status Count() {
    if (++num_values_ <= kMaxEntries) return absl::OkStatus();
    return Invalid(absl::StrCat("more than ", kMaxEntries, " values beside vocab and merges"));
  }

  // `big` is where we are if this is the container model.`big_name`.
  absl::Status Open(Json container, Where big, const std::string& big_name) {
    const bool in_model = open_.size() == 2 && open_.back().name == "model";
    const std::string name = open_.empty() || open_.back().value->is_array() ? std::string() : key_;
    RETURN_IF_ERROR(Count());
    Json* place = Place(std::move(container));
    if (in_model && name == big_name) {
      where_ = big;
    } else {
      open_.push_back({place, name});
    }
    return absl::OkStatus();
  }

  absl::Status Close() {
    if (where_ == Where::kElsewhere) open_.pop_back();
    where_ = Where::kElsewhere;
    return absl::OkStatus();
  }

  absl::Status AddToken(uint64_t id) {
    if (id > static_cast<uint64_t>(kMaxTokenId)) return BadId();
    if (vocab_->size() >= kMaxEntries)
      return Invalid(absl::StrCat("model.vocab has more than ", kMaxEntries, " tokens"));
    vocab_->push_back({std::move(key_), static_cast<int32_t>(id)});
    return absl::OkStatus();
  }

  // "a b": the older way to write a merge.
  absl::Status AddMergeText(const std::string& text) {
    if (text.rfind("#version", 0) == 0) return absl::OkStatus();
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) return NoPair();
    return AddMerge(text.substr(0, space), text.substr(space + 1));
  }

  absl::Status AddToPair(std::string text) {
    pair_.push_back(std::move(text));
    return pair_.size() > 2 ? NoPair() : absl::OkStatus();
  }

  absl::Status EndPair() {
    where_ = Where::kMerges;
    return pair_.size() == 2 ? AddMerge(std::move(pair_[0]), std::move(pair_[1])) : NoPair();
  }

  absl::Status AddMerge(std::string left, std::string right) {
    if (merges_->size() >= kMaxEntries)
      return Invalid(absl::StrCat("model.merges has more than ", kMaxEntries, " entries"));
    merges_->emplace_back(std::move(left), std::move(right));
    return absl::OkStatus();
  }

  absl::Status NoPair() const {
    return Invalid(absl::StrCat("model.merges[", merges_->size(), "] is not a pair of tokens"));
  }
  absl::Status BadId() const {
    return Invalid(
        absl::StrCat("model.vocab gives ", Quote(key_), " an id that is no integer from 0 to ", kMaxTokenId));
  }
  absl::Status NoPlace() const { return where_ == Where::kVocab ? BadId() : NoPair(); }

  std::vector<VocabularyEntry>* vocab_;
  std::vector<std::pair<std::string, std::string>>* merges_;
  Json* rest_;
  std::vector<Container> open_;  // around the next value, outermost first
  std::string key_;
  size_t num_values_ = 0;
  Where where_ = Where::kElsewhere;
  std::vector<std::string> pair_;
};

}  // namespace

TokenizerJson::TokenizerJson() : rest_(std::make_unique<Json>()) {}
TokenizerJson::TokenizerJson(TokenizerJson&&) noexcept = default;
TokenizerJson::~TokenizerJson() = default;

JsonField TokenizerJson::Root() const { return JsonField(rest_.get(), ""); }

absl::StatusOr<TokenizerJson> TokenizerJson::Parse(const std::string& json) {
  TokenizerJson parsed;
  Reader reader(&parsed.vocab, &parsed.merges, parsed.rest_.get());
  RETURN_IF_ERROR(VisitJson(json, kLimits, "tokenizer.json", &reader));
  if (!parsed.rest_->is_object()) return parsed.Root().Error("must be an object");
  return parsed;
}

}  // namespace switchyard
