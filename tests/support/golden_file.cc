#include "tests/support/golden_file.h"

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/base/status_macros.h"

namespace switchyard::testing {
namespace {

template <typename T>
std::vector<double> ReadValues(const std::string& bytes, size_t begin, size_t end) {
  std::vector<double> values;
  for (size_t at = begin; at < end; at += sizeof(T)) {
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof(value));
    values.push_back(static_cast<double>(value));
  }
  return values;
}

}  // namespace

GoldenFile::GoldenFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  CHECK(file.good());
  std::stringstream content;
  content << file.rdbuf();
  const std::string all = content.str();
  uint64_t header_size = 0;
  CHECK(all.size() > sizeof(header_size));
  std::memcpy(&header_size, all.data(), sizeof(header_size));
  const size_t data = sizeof(header_size) + header_size;
  const nlohmann::json header = nlohmann::json::parse(all.substr(sizeof(header_size), header_size));
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const std::string dtype = entry.at("dtype");
    CHECK(dtype == "F64" || dtype == "I64");
    const size_t begin = data + entry.at("data_offsets")[0].get<size_t>();
    const size_t end = data + entry.at("data_offsets")[1].get<size_t>();
    tensors_[name] = {entry.at("shape").get<std::vector<int64_t>>(),
                      dtype == "F64" ? ReadValues<double>(all, begin, end) : ReadValues<int64_t>(all, begin, end)};
  }
}

bool GoldenFile::Has(const std::string& name) const { return tensors_.contains(name); }

const GoldenTensor& GoldenFile::Get(const std::string& name) const {
  const auto found = tensors_.find(name);
  CHECK(found != tensors_.end());
  return found->second;
}

std::vector<int32_t> GoldenFile::GetIds(const std::string& name) const {
  const GoldenTensor& tensor = Get(name);
  return std::vector<int32_t>(tensor.values.begin(), tensor.values.end());
}

}  // namespace switchyard::testing
