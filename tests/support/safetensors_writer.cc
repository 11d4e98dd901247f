#include "tests/support/safetensors_writer.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/bf16.h"
#include "tests/support/temp_folder.h"

namespace switchyard {
namespace testing {
namespace {

template <typename T>
std::string BytesOf(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

}  // namespace

RawTensor F32Tensor(const std::string& name, const std::vector<int64_t>& shape, const std::vector<float>& values) {
  return {name, "F32", shape, BytesOf(values)};
}

RawTensor Bf16Tensor(const std::string& name, const std::vector<int64_t>& shape, const std::vector<float>& values) {
  std::vector<uint16_t> rounded;
  for (const float value : values) rounded.push_back(FloatToBf16(value));
  return {name, "BF16", shape, BytesOf(rounded)};
}

std::string SafetensorsHeader(const std::vector<RawTensor>& tensors, const std::string& metadata) {
  std::vector<std::string> entries;
  if (!metadata.empty()) entries.push_back(absl::StrCat("\"__metadata__\":", metadata));
  size_t begin = 0;
  for (const RawTensor& tensor : tensors) {
    const size_t end = begin + tensor.bytes.size();
    entries.push_back(absl::StrCat("\"", tensor.name, "\":{\"dtype\":\"", tensor.dtype, "\",\"shape\":[",
                                   absl::StrJoin(tensor.shape, ","), "],\"data_offsets\":[", begin, ",", end, "]}"));
    begin = end;
  }
  return absl::StrCat("{", absl::StrJoin(entries, ","), "}");
}

std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + header + data;
}

std::string SafetensorsBytes(const std::vector<RawTensor>& tensors) {
  std::string data;
  for (const RawTensor& tensor : tensors) data += tensor.bytes;
  return SafetensorsBytes(SafetensorsHeader(tensors), data);
}

std::vector<RawTensor> ReadRawTensors(const std::string& path) {
  const std::string file = ReadFile(path);
  uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof(length));
  const nlohmann::json header = nlohmann::json::parse(file.substr(8, length));
  std::vector<RawTensor> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const size_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
    tensors.push_back({name, entry["dtype"], entry["shape"], file.substr(8 + length + begin, end - begin)});
  }
  return tensors;
}

}  // namespace testing
}  // namespace switchyard
