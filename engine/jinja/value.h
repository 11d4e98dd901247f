// The values of a template: Python's, as far as templates can see them.
//
// Copies are cheap: text, lists and dicts are shared and never change once made (the sandbox of the reference forbids
// it, too). What changes - namespaces, loops, iterators - is an Object. Values know how deep they are nested, and none
// is made that is deeper than kMaxValueDepth, so that functions over them may recurse. A graph of shared lists may
// still be exponentially larger than the memory it takes: such functions count their steps in a Budget.
//
// Errors of this library: INVALID_ARGUMENT for what Python would raise, RESOURCE_EXHAUSTED from the Budget.
#ifndef SWITCHYARD_ENGINE_JINJA_VALUE_H_
#define SWITCHYARD_ENGINE_JINJA_VALUE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/jinja/budget.h"

namespace switchyard::jinja {

using Text = std::u32string;  // code points, as Python indexes strings
using TextView = std::u32string_view;

class Dict;
class Object;
class Value;

struct String {
  Text text;
  bool markup = false;  // made by `safe` or `escape`: what is added to it gets escaped
};

// A list or a tuple.
struct Sequence {
  std::vector<Value> items;
  bool is_tuple = false;
  int depth = 1;
};

class Value {
 public:
  Value() = default;  // undefined, without a name
  static Value None() { return Value(Rep(NoneType())); }
  static Value Bool(bool value) { return Value(Rep(value)); }
  static Value Int(int64_t value) { return Value(Rep(value)); }
  static Value Float(double value) { return Value(Rep(value)); }
  static Value Str(Text text, bool markup = false);
  static Value Utf8(std::string_view text);  // REQUIRES: valid UTF-8
  // `message`: what is said when it is used: "'x' is undefined".
  static Value Undefined(std::string message);
  static Value Of(std::shared_ptr<const Dict> dict) { return Value(Rep(std::move(dict))); }
  static Value Of(std::shared_ptr<Object> object) { return Value(Rep(std::move(object))); }
  // INVALID_ARGUMENT: nested too deep.
  static absl::StatusOr<Value> List(std::vector<Value> items, Budget* budget);
  static absl::StatusOr<Value> Tuple(std::vector<Value> items, Budget* budget);

  bool is_undefined() const { return rep_.index() == 0; }
  bool is_none() const { return std::holds_alternative<NoneType>(rep_); }
  bool is_bool() const { return std::holds_alternative<bool>(rep_); }
  bool is_int() const { return std::holds_alternative<int64_t>(rep_); }  // not bool
  bool is_float() const { return std::holds_alternative<double>(rep_); }
  bool is_string() const { return std::holds_alternative<StringPtr>(rep_); }
  bool is_sequence() const { return std::holds_alternative<SequencePtr>(rep_); }  // list or tuple
  bool is_list() const { return is_sequence() && !sequence().is_tuple; }
  bool is_tuple() const { return is_sequence() && sequence().is_tuple; }
  bool is_dict() const { return std::holds_alternative<DictPtr>(rep_); }
  bool is_object() const { return std::holds_alternative<ObjectPtr>(rep_); }
  bool is_integral() const { return is_int() || is_bool(); }
  bool is_number() const { return is_integral() || is_float(); }

  // REQUIRES: the kind.
  bool boolean() const { return std::get<bool>(rep_); }
  int64_t integer() const { return is_bool() ? boolean() : std::get<int64_t>(rep_); }
  double real() const { return is_float() ? std::get<double>(rep_) : static_cast<double>(integer()); }
  const Text& text() const { return std::get<StringPtr>(rep_)->text; }
  bool is_markup() const { return is_string() && std::get<StringPtr>(rep_)->markup; }
  const Sequence& sequence() const { return *std::get<SequencePtr>(rep_); }
  const std::vector<Value>& items() const { return sequence().items; }
  const Dict& dict() const { return *std::get<DictPtr>(rep_); }
  const std::shared_ptr<const Dict>& dict_ptr() const { return std::get<DictPtr>(rep_); }
  Object& object() const { return *std::get<ObjectPtr>(rep_); }
  const std::shared_ptr<Object>& object_ptr() const { return std::get<ObjectPtr>(rep_); }
  // The object if it is a T, else nullptr.
  template <typename T>
  T* As() const {
    return is_object() ? dynamic_cast<T*>(&object()) : nullptr;
  }
  // Of an undefined value: the error of using it.
  absl::Status UndefinedError() const;

  bool IsSame(const Value& other) const;  // Python's `is`, as far as a template can tell
  std::string TypeName() const;           // "str", "NoneType", ...
  int depth() const;

 private:
  struct NoneType {};
  using UndefinedPtr = std::shared_ptr<const std::string>;
  using StringPtr = std::shared_ptr<const String>;
  using SequencePtr = std::shared_ptr<const Sequence>;
  using DictPtr = std::shared_ptr<const Dict>;
  using ObjectPtr = std::shared_ptr<Object>;
  using Rep = std::variant<UndefinedPtr, NoneType, bool, int64_t, double, StringPtr, SequencePtr, DictPtr, ObjectPtr>;
  explicit Value(Rep rep) : rep_(std::move(rep)) {}
  static absl::StatusOr<Value> MakeSequence(std::vector<Value> items, bool is_tuple, Budget* budget);

  Rep rep_;
};

// Keeps the order of insertion. Keys are hashable: 1, 1.0 and true are one key.
class Dict {
 public:
  using Entry = std::pair<Value, Value>;

  // INVALID_ARGUMENT: a key of another kind, or nested too deep.
  absl::Status Set(Value key, Value value, Budget* budget);
  // nullptr: not there. INVALID_ARGUMENT: the key is of a kind that cannot be one.
  absl::StatusOr<const Value*> Find(const Value& key, Budget* budget) const;
  const Value* FindText(TextView key) const;
  // For keys written in the program or in JSON.
  void SetText(std::string_view key, Value value);

  const std::vector<Entry>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  int depth() const { return depth_; }

 private:
  absl::StatusOr<size_t> Locate(const Value& key, size_t hash, Budget* budget) const;
  void Append(size_t hash, Value key, Value value);

  std::vector<Entry> entries_;
  std::unordered_multimap<size_t, size_t> places_;  // hash to index
  int depth_ = 1;
};

// What has identity or changes: iterators, ranges, namespaces, functions, loops.
class Object {
 public:
  virtual ~Object() = default;
  virtual std::string TypeName() const = 0;
  virtual int depth() const { return 1; }
  // Its repr; the reference writes an address where this says "object".
  virtual absl::StatusOr<std::string> Describe(Budget* budget);
};

// Gives values one after the other, once.
class Iterator : public Object {
 public:
  explicit Iterator(int depth) : depth_(depth) {}
  std::string TypeName() const override { return "generator"; }
  int depth() const override { return depth_; }
  // The next value; nullopt at the end, and from then on.
  virtual absl::StatusOr<std::optional<Value>> Next() = 0;

 private:
  const int depth_;
};

class Range : public Object {
 public:
  Range(int64_t start, int64_t stop, int64_t step) : start(start), stop(stop), step(step) {}
  std::string TypeName() const override { return "range"; }
  int64_t size() const;
  int64_t at(int64_t index) const { return start + index * step; }

  const int64_t start, stop, step;
};

// dict.keys(), .values() and .items().
class DictView : public Object {
 public:
  enum class Part { kKeys, kValues, kItems };
  DictView(std::shared_ptr<const Dict> dict, Part part) : dict(std::move(dict)), part(part) {}
  std::string TypeName() const override;
  int depth() const override { return dict->depth() + 1; }
  absl::StatusOr<Value> at(size_t index, Budget* budget) const;

  const std::shared_ptr<const Dict> dict;
  const Part part;
};

// namespace(): the one thing that a template can change from inside a loop.
class Namespace : public Object {
 public:
  std::string TypeName() const override { return "Namespace"; }
  std::vector<std::pair<std::string, Value>> attributes;
  Value* Find(std::string_view name);
  void Set(const std::string& name, Value value);
};

// REQUIRES: `depth` is that of the parts.
absl::Status CheckDepth(int depth);

absl::Status PythonError(std::string message);  // INVALID_ARGUMENT

std::string ToUtf8(TextView text);     // lone surrogates become U+FFFD
Text FromUtf8(std::string_view text);  // REQUIRES: valid UTF-8

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_VALUE_H_
