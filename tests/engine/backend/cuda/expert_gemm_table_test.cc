#include "engine/backend/cuda/expert_gemm_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/temp_folder.h"

namespace switchyard::cuda {
namespace {

using ::testing::HasSubstr;

constexpr char kGoodEntry[] = R"({"device": "NVIDIA H200", "hidden": 2048, "intermediate": 768, "experts": 128,
    "top_k": 8, "dtype": "bfloat16", "always": "native",
    "fastest": [{"max_tokens": 32, "provider": "native"}, {"max_tokens": 256, "provider": "cublas_padded"},
                {"max_tokens": 8192, "provider": "cublas_grouped"}],
    "measured": {"date": "2026-11-23", "microseconds": [{"tokens": 1, "routing": "zipf", "native": 20.5}]}})";

std::string Document(const std::string& entries) {
  return R"({"format": "switchyard expert gemm table 1", "entries": [)" + entries + "]}";
}

// The good entry with one part of its text exchanged.
std::string With(const std::string& part, const std::string& replacement) {
  std::string text = kGoodEntry;
  const size_t at = text.find(part);
  EXPECT_NE(at, std::string::npos) << part;
  return Document(text.replace(at, part.size(), replacement));
}

TEST(ExpertGemmTableTest, ReadsShapesAndBuckets) {
  const std::string other = With("NVIDIA H200", "NVIDIA H100");
  const std::string second = other.substr(other.find("[{") + 1, other.rfind(']') - other.find("[{") - 1);
  const auto table = ParseExpertGemmTable(Document(std::string(kGoodEntry) + "," + second), "t.json");
  ASSERT_TRUE(table.ok()) << table.status();
  ASSERT_EQ(table->size(), 2u);
  const ExpertGemmEntry& entry = (*table)[0];
  EXPECT_EQ(entry.device, "NVIDIA H200");
  EXPECT_EQ((*table)[1].device, "NVIDIA H100");
  EXPECT_EQ(entry.shape, (ExpertGemmShape{2048, 768, 128, 8, DType::kBF16}));
  EXPECT_STREQ(entry.always->name, "native");
  ASSERT_EQ(entry.fastest.size(), 3u);
  EXPECT_EQ(entry.fastest[1].max_tokens, 256);
  EXPECT_STREQ(entry.fastest[1].provider->name, "cublas_padded");
  EXPECT_STREQ(entry.fastest[2].provider->name, "cublas_grouped");
}

struct Hostile {
  const char* name;
  std::string text;
  const char* message;
};

class HostileTableTest : public ::testing::TestWithParam<Hostile> {};

TEST_P(HostileTableTest, IsRefusedWithTheFieldItsValueAndWhatIsAllowed) {
  const absl::Status status = ParseExpertGemmTable(GetParam().text, "t.json").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
  EXPECT_THAT(std::string(status.message()), ::testing::StartsWith("t.json: "));
}

std::string ManyBuckets(int count) {
  std::string buckets;
  for (int i = 1; i <= count; ++i) {
    buckets += (i == 1 ? "" : ",") + std::string(R"({"max_tokens": )") + std::to_string(i) +
               R"(, "provider": "native"})";
  }
  return With(R"({"max_tokens": 32, "provider": "native"}, {"max_tokens": 256, "provider": "cublas_padded"},
                {"max_tokens": 8192, "provider": "cublas_grouped"})", buckets);
}

INSTANTIATE_TEST_SUITE_P(
    Tables, HostileTableTest,
    ::testing::Values(
        Hostile{"Empty", "", "not valid JSON"}, Hostile{"List", "[]", "the document is not an object"},
        Hostile{"OtherFormat", R"({"format": 7, "entries": [1]})", "format is 7, expected \"switchyard expert gemm"},
        Hostile{"NoEntries", R"({"format": "switchyard expert gemm table 1"})", "the document has no \"entries\""},
        Hostile{"EntriesOfNone", Document(""), "entries has 0 elements, expected 1 to 1024"},
        Hostile{"EntryIsNumber", Document("3"), "entries[0] is not an object"},
        Hostile{"UnknownField", With("\"top_k\"", R"("speed": 1, "top_k")"), "a field \"speed\", which is not known"},
        Hostile{"MissingField", With(R"("top_k": 8, )", ""), "entries[0] has no \"top_k\""},
        Hostile{"DuplicateKey", With("\"top_k\"", R"("top_k": 1, "top_k")"), "duplicate key \"top_k\""},
        Hostile{"UnknownProvider", With(R"("always": "native")", R"("always": "abacus")"),
                "entries[0].always is \"abacus\", which is no provider; for every number of tokens use one of: native, "
                "wgmma"},
        Hostile{"AlwaysDependsOnTheBatch", With(R"("always": "native")", R"("always": "cublas_padded")"),
                "entries[0].always is \"cublas_padded\""},
        Hostile{"PaddedBeyondItsLimit", With(": 256", ": 257"),
                "entries[0].fastest[1].provider is \"cublas_padded\", which cannot serve all such steps; for 33 to 257 "
                "tokens use one of: native"},
        Hostile{"GroupedInRecordedSteps", With("\"native\"}, {", "\"cublas_grouped\"}, {"),
                "entries[0].fastest[0].provider is \"cublas_grouped\", which cannot serve all such steps; for 1 to 32 "
                "tokens use one of: native, wgmma, cublas_padded"},
        Hostile{"OverlappingBuckets", With(": 256", ": 32"),
                "fastest[1].max_tokens is 32, but the elements before serve up to 32 tokens already"},
        Hostile{"DescendingBuckets", With(": 8192", ": 64"), "fastest[2].max_tokens is 64, but the elements before"},
        Hostile{"TooManyBuckets", ManyBuckets(65), "fastest has 65 elements, expected 1 to 64"},
        Hostile{"BucketOfNoTokens", With(": 32", ": 0"), "max_tokens is 0, expected an integer from 1 to 1048576"},
        Hostile{"NegativeSize", With("2048", "-2048"), "entries[0].hidden is -2048, expected an integer from 1 to"},
        Hostile{"HugeSize", With("2048", "18446744073709551615"), "hidden is 18446744073709551615, expected"},
        Hostile{"FractionalSize", With("2048", "2048.5"), "hidden is 2048.5, expected an integer"},
        Hostile{"SizeAsText", With("2048", "\"2048\""), "hidden is \"2048\", expected an integer"},
        Hostile{"TooManyExperts", With("128", "513"), "experts is 513, expected an integer from 1 to 512"},
        Hostile{"MoreChoicesThanExperts", With("128", "7"), "top_k is 8, expected an integer from 1 to 7"},
        Hostile{"UnknownDType", With("bfloat16", "int8"), "dtype is \"int8\"; use bfloat16 or float32"},
        Hostile{"DeviceIsNumber", With("\"NVIDIA H200\"", "7"), "entries[0].device is 7, not a text"},
        Hostile{"DeviceWithoutName", With("NVIDIA H200", ""), "entries[0].device has 0 bytes, expected 1 to 256"},
        Hostile{"SameShapeTwice", Document(std::string(kGoodEntry) + "," + kGoodEntry),
                "entries[1] is for the device and shape of entries[0]"},
        Hostile{"TooDeep", With("20.5", std::string(40, '[') + std::string(40, ']')), "nested deeper than 16 levels"},
        Hostile{"TooLarge", std::string((size_t{4} << 20) + 1, ' '), "at most 4194304 are read"}),
    [](const auto& info) { return info.param.name; });

TEST(ExpertGemmTableTest, FilesAreReadByNameAndNothingElseIs) {
  testing::TempFolder folder;
  folder.Write("table.json", Document(kGoodEntry));
  EXPECT_TRUE(ReadExpertGemmTable(folder.PathOf("table.json")).ok());
  EXPECT_EQ(ReadExpertGemmTable(folder.PathOf("other.json")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(ReadExpertGemmTable(folder.path() + "/").ok());
}

}  // namespace
}  // namespace switchyard::cuda
