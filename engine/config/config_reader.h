// Reads the values of a JSON config by key and notes everything that is wrong, so that one run reports it all.
//
// A value that is wrong is noted once and read as 0 (or false, or empty); checks that combine values skip zeros.
#ifndef SWITCHYARD_ENGINE_CONFIG_CONFIG_READER_H_
#define SWITCHYARD_ENGINE_CONFIG_CONFIG_READER_H_

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace switchyard {

// What is wrong with one file. Keeps a bounded number of lines.
class ConfigProblems {
 public:
  explicit ConfigProblems(std::string file) : file_(std::move(file)) {}

  // The file contradicts itself or its format: "vocab_size is 0; it must be from 1 to 16777216".
  void AddInvalid(const std::string& problem);
  // The file is fine, but asks for something that this engine does not do.
  void AddUnimplemented(const std::string& problem);

  // OK when there are none. INVALID_ARGUMENT when any value is invalid, else UNIMPLEMENTED; all lines either way.
  absl::Status ToStatus() const;

 private:
  void Add(const std::string& problem);

  std::string file_;
  std::vector<std::string> lines_;
  int64_t num_problems_ = 0;
  bool any_invalid_ = false;
};

// One object of the config. A view: `object` and `problems` outlive it.
//
// A key may be a path: "attn_config.clip_qkv" is clip_qkv of the object attn_config, absent where that is no object.
class ConfigReader {
 public:
  // `prefix` stands before each key in messages: "" or "rope_scaling.".
  ConfigReader(const nlohmann::json& object, std::string prefix, ConfigProblems* problems)
      : object_(&object), prefix_(std::move(prefix)), problems_(problems) {}

  ConfigProblems& problems() const { return *problems_; }

  bool IsPresent(const std::string& key) const;  // a null counts
  bool IsNull(const std::string& key) const;     // present and null
  bool IsInteger(const std::string& key) const;
  bool HasValue(const std::string& key) const { return IsPresent(key) && !IsNull(key); }

  // The value; `missing` where the key is absent or null.
  int32_t Int(const std::string& key, int32_t missing, int32_t min, int32_t max) const;
  double Real(const std::string& key, double missing, double min, double max) const;
  bool Bool(const std::string& key, bool missing) const;
  std::string Text(const std::string& key, const std::string& missing) const;
  // One of `allowed`; "" where it is none of them.
  std::string OneOf(const std::string& key, const std::string& missing,
                    std::initializer_list<const char*> allowed) const;
  // An integer or a list of at most `max_count`; empty where the key is absent or null.
  std::vector<int32_t> Ints(const std::string& key, int32_t min, int32_t max, size_t max_count) const;
  std::vector<double> Reals(const std::string& key, double min, double max, size_t max_count) const;
  std::vector<std::string> Texts(const std::string& key, size_t max_count) const;
  std::optional<ConfigReader> Object(const std::string& key) const;

  // Like Int, but absent is a problem too.
  int32_t RequiredInt(const std::string& key, int32_t min, int32_t max) const;

  // For a value that has had several names: the one in use here, or the first. Noted when two are in use and differ.
  std::string NameInUse(std::initializer_list<const char*> names) const;

  // "num_experts is 0" for messages of the caller.
  std::string Describe(const std::string& key) const;

 private:
  const nlohmann::json* Find(const std::string& key) const;   // null where absent
  const nlohmann::json* Value(const std::string& key) const;  // null where absent or JSON null
  int32_t CheckedInt(const std::string& key, const nlohmann::json& value, int32_t min, int32_t max) const;
  void Invalid(const std::string& key, const std::string& expected) const;

  const nlohmann::json* object_;
  std::string prefix_;
  ConfigProblems* problems_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CONFIG_CONFIG_READER_H_
