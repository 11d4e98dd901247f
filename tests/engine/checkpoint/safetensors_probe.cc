// For safetensors_differential_test.py: reads names of files from standard input, one per line, and says for each
// whether its header is accepted: "ok", or the error's first line.
#include <filesystem>
#include <iostream>
#include <string>

#include "engine/base/model_folder.h"
#include "engine/checkpoint/safetensors.h"

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    const std::filesystem::path path = line;
    const auto folder = switchyard::ModelFolder::Open(path.parent_path().string());
    absl::Status status = folder.status();
    if (folder.ok()) status = switchyard::SafetensorsFile::Open(*folder, path.filename().string()).status();
    std::cout << (status.ok() ? "ok" : std::string(status.message())) << "\n";
  }
  return 0;
}
