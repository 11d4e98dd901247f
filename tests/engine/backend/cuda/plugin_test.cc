// The real plugin, on a machine with or without a GPU.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <string>

#include "engine/backend/cuda/plugin.h"

namespace switchyard::cuda {
namespace {

class PluginTest : public ::testing::Test {
 protected:
  void SetUp() override {
    plugin_ = dlopen(SWITCHYARD_PLUGIN, RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(plugin_, nullptr) << dlerror();
  }

  template <typename Function>
  Function Find(const char* name) {
    return reinterpret_cast<Function>(dlsym(plugin_, name));
  }

  void* plugin_ = nullptr;
};

TEST_F(PluginTest, IsOfThisBuild) {
  const auto version = Find<VersionFunction>(kVersionSymbol);
  ASSERT_NE(version, nullptr);
  EXPECT_STREQ(version(), kPluginVersion);
}

TEST_F(PluginTest, ShowsItsThreeFunctionsAndNothingElseOfOurs) {
  EXPECT_NE(dlsym(plugin_, kScoreSymbol), nullptr);
  EXPECT_NE(dlsym(plugin_, kCreateSymbol), nullptr);
  EXPECT_EQ(dlsym(plugin_, "_ZN10switchyard4cuda17CreateCudaBackendERKNS_14BackendOptionsE"), nullptr);
}

TEST_F(PluginTest, SaysWhetherThereIsADevice) {
  const auto score = Find<ScoreFunction>(kScoreSymbol);
  ASSERT_NE(score, nullptr);
  char text[256] = "";
  // Without a driver CUDA reports one that is too old for it.
  const int suits = score(text, sizeof(text));
  if (suits <= 0) {
    EXPECT_TRUE(std::string(text).find("CUDA finds no device") != std::string::npos ||
                std::string(text).find("the GPU cannot be used: ") != std::string::npos)
        << text;
  } else {
    EXPECT_NE(std::string(text), "");
  }
}

}  // namespace
}  // namespace switchyard::cuda
