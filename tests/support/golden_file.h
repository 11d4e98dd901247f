// Reads the small golden.safetensors files (I64 and F64 tensors) that the fixtures carry. Trusts them.
#ifndef SWITCHYARD_TESTS_SUPPORT_GOLDEN_FILE_H_
#define SWITCHYARD_TESTS_SUPPORT_GOLDEN_FILE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace switchyard::testing {

struct GoldenTensor {
  std::vector<int64_t> shape;
  std::vector<double> values;  // integers converted exactly
};

class GoldenFile {
 public:
  explicit GoldenFile(const std::string& path);
  bool Has(const std::string& name) const;
  const GoldenTensor& Get(const std::string& name) const;
  std::vector<int32_t> GetIds(const std::string& name) const;

 private:
  std::map<std::string, GoldenTensor> tensors_;
};

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_SUPPORT_GOLDEN_FILE_H_
