// Builds ModelInferRequests, good ones and others, with raw or typed contents.
#ifndef SWITCHYARD_TESTS_SERVER_FRONTEND_KSERVE_INFER_REQUESTS_H_
#define SWITCHYARD_TESTS_SERVER_FRONTEND_KSERVE_INFER_REQUESTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "inference/grpc_service.pb.h"

namespace switchyard::kserve {

using Input = inference::ModelInferRequest::InferInputTensor;

template <typename Value>
std::string RawBytes(const std::vector<Value>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(Value));
}

inline std::string RawTexts(const std::vector<std::string>& texts) {
  std::string raw;
  for (const std::string& text : texts) raw += RawBytes<uint32_t>({static_cast<uint32_t>(text.size())}) + text;
  return raw;
}

inline Input* AddInput(const std::string& name, const std::string& datatype, const std::vector<int64_t>& shape,
                       inference::ModelInferRequest* request) {
  Input* input = request->add_inputs();
  input->set_name(name);
  input->set_datatype(datatype);
  for (const int64_t dimension : shape) input->add_shape(dimension);
  return input;
}

// All inputs of a request are raw, or none is.
inline void AddRaw(const std::string& name, const std::string& datatype, const std::vector<int64_t>& shape,
                   const std::string& raw, inference::ModelInferRequest* request) {
  AddInput(name, datatype, shape, request);
  request->add_raw_input_contents(raw);
}

inline void AddRawText(const std::string& name, const std::string& text, inference::ModelInferRequest* request) {
  AddRaw(name, "BYTES", {1}, RawTexts({text}), request);
}

inline void AddTypedText(const std::string& name, const std::string& text, inference::ModelInferRequest* request) {
  AddInput(name, "BYTES", {1}, request)->mutable_contents()->add_bytes_contents(text);
}

// Raw: "hello" and `max_tokens`.
inline inference::ModelInferRequest Hello(int32_t max_tokens = 3) {
  inference::ModelInferRequest request;
  request.set_id("r1");
  AddRawText("text_input", "hello", &request);
  AddRaw("max_tokens", "INT32", {1}, RawBytes<int32_t>({max_tokens}), &request);
  return request;
}

// The texts of a raw BYTES output, or {"no such output"}.
inline std::vector<std::string> OutputTexts(const inference::ModelInferResponse& response, const std::string& name) {
  for (int i = 0; i < response.outputs_size(); ++i) {
    if (response.outputs(i).name() != name) continue;
    std::vector<std::string> texts;
    const std::string& raw = response.raw_output_contents(i);
    for (size_t at = 0; at + 4 <= raw.size();) {
      uint32_t size = 0;
      raw.copy(reinterpret_cast<char*>(&size), sizeof(size), at);
      texts.push_back(raw.substr(at + 4, size));
      at += 4 + size;
    }
    return texts;
  }
  return {"no such output"};
}

}  // namespace switchyard::kserve

#endif  // SWITCHYARD_TESTS_SERVER_FRONTEND_KSERVE_INFER_REQUESTS_H_
