// Every way in which a machine may lack a usable GPU gets its own answer, and nothing is opened that is not needed. The
// driver and the plugin are small libraries of this test's own.
#include "engine/backend/cuda/plugin_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

namespace switchyard::cuda {
namespace {

using ::testing::HasSubstr;

class PluginLoaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    setenv("SWITCHYARD_FAKE_DEVICES", "1", 1);
    setenv("SWITCHYARD_FAKE_PLUGIN", "", 1);
  }

  absl::Status Load() const { return LoadCudaBackend({}, files_).status(); }

  void ExpectMissing(const std::string& reason) const {
    const absl::Status status = Load();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr(reason));
  }

  PluginFiles files_ = {.driver = SWITCHYARD_FAKE_DRIVER, .plugin = SWITCHYARD_FAKE_PLUGIN};
};

TEST_F(PluginLoaderTest, NoDriver) {
  files_.driver = "/nonexistent/libcuda.so.1";
  ExpectMissing("there is no NVIDIA driver");
}

TEST_F(PluginLoaderTest, ALibraryThatIsNoDriver) {
  files_.driver = SWITCHYARD_FAKE_PLUGIN;
  ExpectMissing("has no function cuInit");
}

TEST_F(PluginLoaderTest, ADriverThatDoesNotStart) {
  setenv("SWITCHYARD_FAKE_DEVICES", "broken", 1);
  const absl::Status status = Load();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << "a GPU that is broken is not one that is missing";
  EXPECT_THAT(std::string(status.message()), HasSubstr("the NVIDIA driver does not start: error 999"));
}

TEST_F(PluginLoaderTest, ADriverWithoutDevices) {
  setenv("SWITCHYARD_FAKE_DEVICES", "0", 1);
  files_.plugin = "/nonexistent/plugin.so";  // must not even be looked for
  ExpectMissing("the NVIDIA driver sees no device");
}

TEST_F(PluginLoaderTest, NoPlugin) {
  files_.plugin = "/nonexistent/libswitchyard_cuda.so";
  ExpectMissing("cannot open /nonexistent/libswitchyard_cuda.so");
}

TEST_F(PluginLoaderTest, PluginIsSearchedWhereTheEnvironmentSays) {
  files_.plugin = "";
  setenv("SWITCHYARD_PLUGIN_DIR", "/nonexistent", 1);
  ExpectMissing("cannot open libswitchyard_cuda.so");
  unsetenv("SWITCHYARD_PLUGIN_DIR");
}

TEST_F(PluginLoaderTest, ALibraryThatIsNoPlugin) {
  files_.plugin = SWITCHYARD_FAKE_DRIVER;
  ExpectMissing("has no function SwitchyardCudaVersion");
}

TEST_F(PluginLoaderTest, PluginOfAnotherVersion) {
  setenv("SWITCHYARD_FAKE_PLUGIN", "old", 1);
  ExpectMissing("is of version 0.0.1-000000000000, this program of ");
}

TEST_F(PluginLoaderTest, DeviceThatDoesNotSuit) {
  setenv("SWITCHYARD_FAKE_PLUGIN", "unsuited", 1);
  ExpectMissing("the device is too old");
}

TEST_F(PluginLoaderTest, FailureOfADeviceThatIsThereIsNotTakenForItsAbsence) {
  const absl::Status status = Load();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "no memory left on the GPU");
}

}  // namespace
}  // namespace switchyard::cuda
