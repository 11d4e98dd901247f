#include "tests/support/golden_file.h"

#include <cstring>
#include <fstream>
#include <sstream>

#include <nlohmann/json.hpp>

#include "engine/base/status_macros.h"

namespace switchyard::testing {

GoldenFile::GoldenFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  CHECK(file.good());
  std::stringstream content;
  content << file.rdbuf();
  const std::string all = content.str();
  uint64_t header_size = 0;
  CHECK(all.size() > sizeof(header_size));
  std::memcpy(&header_size, all.data(), sizeof(header_size));
  header_ = all.substr(8, header_size);
  bytes_ = all.substr(8 + header_size);
}

bool GoldenFile::Has(const std::string& name) const { return nlohmann::json::parse(header_).contains(name); }

GoldenTensor GoldenFile::Get(const std::string& name) const {
  const nlohmann::json entry = nlohmann::json::parse(header_).at(name);
  GoldenTensor tensor;
  tensor.shape = entry.at("shape").get<std::vector<int64_t>>();
  const size_t begin = entry.at("data_offsets")[0], end = entry.at("data_offsets")[1];
  const std::string dtype = entry.at("dtype");
  CHECK(dtype == "F64" || dtype == "I64");
  for (size_t at = begin; at < end; at += 8) {
    if (dtype == "F64") {
      double value;
      std::memcpy(&value, bytes_.data() + at, sizeof(value));
      tensor.values.push_back(value);
    } else {
      int64_t value;
      std::memcpy(&value, bytes_.data() + at, sizeof(value));
      tensor.values.push_back(static_cast<double>(value));
    }
  }
  return tensor;
}

std::vector<int32_t> GoldenFile::GetIds(const std::string& name) const {
  const GoldenTensor tensor = Get(name);
  return std::vector<int32_t>(tensor.values.begin(), tensor.values.end());
}

}  // namespace switchyard::testing
