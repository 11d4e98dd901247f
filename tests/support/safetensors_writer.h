// Writes safetensors files for tests: correct ones from tensors, and any header over any data.
//
//   folder.Write("model.safetensors", SafetensorsBytes({F32Tensor("a", {2, 2}, {1, 2, 3, 4})}));
#ifndef SWITCHYARD_TESTS_SUPPORT_SAFETENSORS_WRITER_H_
#define SWITCHYARD_TESTS_SUPPORT_SAFETENSORS_WRITER_H_

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {
namespace testing {

struct RawTensor {
  std::string name;
  std::string dtype;  // as in the file: "F32"
  std::vector<int64_t> shape;
  std::string bytes;  // row-major, little endian
};

RawTensor F32Tensor(const std::string& name, const std::vector<int64_t>& shape, const std::vector<float>& values);
RawTensor Bf16Tensor(const std::string& name, const std::vector<int64_t>& shape, const std::vector<float>& values);

// The header text of `tensors`, laid out in their order. Names are not escaped.
std::string SafetensorsHeader(const std::vector<RawTensor>& tensors, const std::string& metadata = "");

// A file of `header` and `data`, whatever they are.
std::string SafetensorsBytes(const std::string& header, const std::string& data);
std::string SafetensorsBytes(const std::vector<RawTensor>& tensors);

// The tensors of a correct file. Aborts on any other.
std::vector<RawTensor> ReadRawTensors(const std::string& path);

}  // namespace testing
}  // namespace switchyard

#endif  // SWITCHYARD_TESTS_SUPPORT_SAFETENSORS_WRITER_H_
