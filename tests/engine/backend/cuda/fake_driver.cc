// Stands for libcuda.so.1. SWITCHYARD_FAKE_DEVICES: how many devices there are; "broken": the driver does not start.
#include <cstdlib>
#include <cstring>

namespace {

const char* Setting() {
  const char* const setting = std::getenv("SWITCHYARD_FAKE_DEVICES");
  return setting == nullptr ? "0" : setting;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int cuInit(unsigned) {
  return std::strcmp(Setting(), "broken") == 0 ? 999 : 0;
}

extern "C" __attribute__((visibility("default"))) int cuDeviceGetCount(int* count) {
  *count = std::atoi(Setting());
  return 0;
}
