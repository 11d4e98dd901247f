// Model folders that lie or attack. Each is refused with a message that names the file, the place and the problem;
// within a second, and without taking more memory than the files hold plus 64 MB.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <ostream>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/engine/checkpoint/tiny_model.h"

namespace switchyard {
namespace {

using testing::F32Tensor;
using ::testing::HasSubstr;
using testing::LoadModel;
using testing::RawTensor;
using testing::SafetensorsBytes;
using testing::SafetensorsHeader;
using testing::TempFolder;
using testing::TinyConfig;
using testing::TinyTensors;

struct HostileModel {
  const char* name;
  std::function<void(const TempFolder&)> spoil;  // gets a folder with config.json in it
  std::string message;                           // that the refusal holds
  std::string where = "";                        // that it holds too
};

void PrintTo(const HostileModel& model, std::ostream* out) { *out << model.name; }

// ------------------------------------------------------------------------------------------------- measuring

int64_t PeakRssBytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    int64_t kib = 0;
    if (word == "VmHWM:" && status >> kib) return kib * 1024;
  }
  return 0;
}

// Forgets the peak so far. False where the kernel does not let us.
bool ResetPeakRss() { return bool(std::ofstream("/proc/self/clear_refs") << "5" << std::flush); }

constexpr bool kSanitized =
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    true;
#else
    false;
#endif
#else
    false;
#endif

int64_t BytesIn(const TempFolder& folder) {
  int64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    if (!entry.is_symlink() && entry.is_regular_file()) bytes += static_cast<int64_t>(entry.file_size());
  }
  return bytes;
}

class HostileModelTest : public ::testing::TestWithParam<HostileModel> {};

TEST_P(HostileModelTest, IsRefusedWithAReason) {
  TempFolder folder;
  folder.Write("config.json", TinyConfig());
  GetParam().spoil(folder);

  const bool measures = !kSanitized && ResetPeakRss();
  const int64_t rss_before = PeakRssBytes();
  const std::clock_t start = std::clock();  // of the process: the machine may be busy with other tests
  const absl::Status status = LoadModel(folder.path()).status();
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  const int64_t rss_growth = PeakRssBytes() - rss_before;

  ASSERT_FALSE(status.ok());
  EXPECT_TRUE(absl::IsInvalidArgument(status) || absl::IsNotFound(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().where));
  EXPECT_LT(status.message().size(), 20'000u);
  // The rule is one second for files up to 1 MB, and as long again for each 20 MB of larger ones. Three times that, for
  // slow machines.
  const double seconds_allowed = (kSanitized ? 30.0 : 3.0) * (1.0 + static_cast<double>(BytesIn(folder)) / 20e6);
  EXPECT_LT(seconds, seconds_allowed);
  if (measures) {
    EXPECT_LE(rss_growth, BytesIn(folder) + (64 << 20));
  }
}

std::string NameOf(const ::testing::TestParamInfo<HostileModel>& info) { return info.param.name; }

// ------------------------------------------------------------------------------------------------- makers

// model.safetensors of these bytes.
HostileModel Bytes(const char* name, const std::string& bytes, const std::string& message,
                   const std::string& where = "model.safetensors: ") {
  return {name, [bytes](const TempFolder& folder) { folder.Write("model.safetensors", bytes); }, message, where};
}

std::string LengthAnd(uint64_t length, const std::string& rest) {
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + rest;
}

// A file with this header over `data_bytes` zeros.
HostileModel Header(const char* name, const std::string& header, int data_bytes, const std::string& message) {
  return Bytes(name, SafetensorsBytes(header, std::string(static_cast<size_t>(data_bytes), '\0')), message,
               "model.safetensors: header from byte 8: ");
}

// One tensor "t" with these fields over 4 bytes of data.
HostileModel Tensor(const char* name, const std::string& fields, const std::string& message) {
  return Header(name, "{\"t\":{" + fields + "}}", 4, message);
}

std::string Entry(const std::string& name, int begin, int end) {
  return absl::StrCat("\"", name, R"(":{"dtype":"U8","shape":[)", end - begin, R"(],"data_offsets":[)", begin, ",", end,
                      "]}");
}

std::string ManyTensors(int count) {
  std::string header = "{";
  for (int i = 0; i < count; ++i) {
    absl::StrAppend(&header, i == 0 ? "" : ",", "\"", i, R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})");
  }
  return header + "}";
}

std::string Repeat(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

// The tiny model after `change`, whole and well-formed.
HostileModel Changed(const char* name, const std::function<void(std::vector<RawTensor>&)>& change,
                     const std::string& message, const std::string& more_config = "") {
  return {name,
          [change, more_config](const TempFolder& folder) {
            std::vector<RawTensor> tensors = TinyTensors();
            change(tensors);
            folder.Write("config.json", TinyConfig(more_config));
            folder.Write("model.safetensors", SafetensorsBytes(tensors));
          },
          message};
}

RawTensor& Get(std::vector<RawTensor>& tensors, const std::string& ending) {
  for (RawTensor& tensor : tensors) {
    if (tensor.name.ends_with(ending)) return tensor;
  }
  CHECK(false);
}

void Remove(std::vector<RawTensor>& tensors, const std::string& fragment) {
  std::erase_if(tensors, [&](const RawTensor& tensor) { return tensor.name.find(fragment) != std::string::npos; });
}

// An index over two shards, a.safetensors with the first 8 tensors and b.safetensors with the rest, after `change` to
// the map from tensor to file.
using WeightMap = std::vector<std::pair<std::string, std::string>>;
HostileModel Index(const char* name, const std::function<void(const TempFolder&, WeightMap&)>& change,
                   const std::string& message) {
  return {name,
          [change](const TempFolder& folder) {
            const std::vector<RawTensor> tensors = TinyTensors();
            const std::vector<RawTensor> first(tensors.begin(), tensors.begin() + 8);
            const std::vector<RawTensor> second(tensors.begin() + 8, tensors.end());
            folder.Write("a.safetensors", SafetensorsBytes(first));
            folder.Write("b.safetensors", SafetensorsBytes(second));
            WeightMap map;
            for (const RawTensor& tensor : first) map.emplace_back(tensor.name, "a.safetensors");
            for (const RawTensor& tensor : second) map.emplace_back(tensor.name, "b.safetensors");
            change(folder, map);
            std::string index = R"({"metadata":{"total_size":1},"weight_map":{)";
            for (size_t i = 0; i < map.size(); ++i) {
              absl::StrAppend(&index, i == 0 ? "" : ",", "\"", map[i].first, "\":\"", map[i].second, "\"");
            }
            folder.Write("model.safetensors.index.json", index + "}}");
          },
          message};
}

HostileModel RenamedShard(const char* name, const std::string& shard, const std::string& message) {
  return Index(
      name, [shard](const TempFolder&, WeightMap& map) { map[0].second = shard; }, message);
}

HostileModel IndexText(const char* name, const std::string& text, const std::string& message) {
  return {name, [text](const TempFolder& folder) { folder.Write("model.safetensors.index.json", text); },
          "model.safetensors.index.json: " + message};
}

HostileModel Folder(const char* name, const std::function<void(const TempFolder&)>& spoil, const std::string& message) {
  return {name, spoil, message};
}

// ------------------------------------------------------------------------------------------------- the files

INSTANTIATE_TEST_SUITE_P(
    M1M2M3Length, HostileModelTest,
    ::testing::Values(
        Bytes("EmptyFile", "", "has 0 bytes; a safetensors file has at least 8"),
        Bytes("OneByte", "\x01", "has 1 bytes; a safetensors file has at least 8"),
        Bytes("SevenBytes", std::string(7, '\0'), "has 7 bytes; a safetensors file has at least 8"),
        Bytes("LengthAboveLimit", LengthAnd(100'000'001, "{}"),
              "byte 0: header length is 100000001; it must be at most 100000000"),
        Bytes("LengthTwoTo63", LengthAnd(uint64_t{1} << 63, "{}"), "byte 0: header length is 9223372036854775808;"),
        Bytes("LengthThatWraps", LengthAnd(UINT64_MAX - 7, "{}"), "byte 0: header length is 18446744073709551608;"),
        Bytes("LengthAllOnes", LengthAnd(UINT64_MAX, "{}"), "byte 0: header length is 18446744073709551615;"),
        Bytes("LengthAtLimitOfShortFile", LengthAnd(100'000'000, "{}"),
              "byte 0: the header ends at byte 100000008, but the file has 10 bytes"),
        Bytes("LengthOneTooLong", LengthAnd(3, "{}"), "byte 0: the header ends at byte 11, but the file has 10 bytes"),
        Bytes("LengthBigEndian", std::string("\0\0\0\0\0\0\0\x02{}", 10),
              "byte 0: header length is 144115188075855872;"),
        Bytes("PickleInstead", "\x80\x02}q\x01(X\x05\0\0\0abc", "byte 0: header length is"),
        Bytes("ZipInstead", std::string("PK\x03\x04", 4) + std::string(100, '\0'),
              "byte 0: the header ends at byte 67324760"),
        Bytes("HtmlInstead", "<!DOCTYPE html><html></html>", "byte 0: header length is"),
        Bytes("LfsPointerInstead", "version https://git-lfs.example/spec/v1\noid sha256:00\nsize 9\n",
              "byte 0: header length is")),
    NameOf);

INSTANTIATE_TEST_SUITE_P(
    M4M12HeaderText, HostileModelTest,
    ::testing::Values(
        Header("NoHeader", "", 0, "does not begin with '{'"),
        Header("HeaderIsArray", "[]", 0, "does not begin with '{'"),
        Header("HeaderIsNumber", "1", 0, "does not begin with '{'"),
        Header("LeadingSpace", " {}", 0, "does not begin with '{'"),
        Header("ByteOrderMark", "\xef\xbb\xbf{}", 0, "does not begin with '{'"),
        Header("NotUtf8Name", "{\"\xff\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4,
               "not valid JSON at byte 3"),
        Header("LoneSurrogate", R"({"\ud800":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4, "not valid JSON"),
        Header("Unfinished", R"({"t":{"dtype":"U8")", 0, "not valid JSON"),
        Header("TwoDocuments", "{}{}", 0, "not valid JSON at byte 3"),
        Header("TrailingText", "{} x", 0, "not valid JSON at byte 4"),
        Header("NulPadding", std::string("{}\0\0\0", 5), 0, "NUL at byte 2"),
        Header("TextBehindNul", std::string("{}\0{}", 5), 0, "NUL at byte 2"),
        Header("Comment", "{/* */}", 0, "not valid JSON"), Header("SingleQuotes", "{'t':1}", 0, "not valid JSON"),
        Header("TrailingComma", "{" + Entry("t", 0, 4) + ",}", 4, "not valid JSON"),
        Header("MegabyteOfObjects", Repeat("{\"a\":", 200'000), 0, "tensor \"a\": unknown key \"a\""),
        Header("MegabyteOfArrays", "{\"t\":" + std::string(1'000'000, '['), 0,
               "tensor \"t\": an array where none belongs"),
        Header("NestedShape", R"({"t":{"dtype":"U8","shape":[[[[4]]]],"data_offsets":[0,4]}})", 4,
               "nested deeper than 3 levels"),
        Header("NumberTooLarge", R"({"t":{"dtype":"U8","shape":[1e400],"data_offsets":[0,4]}})", 4,
               "number out of range"),
        Header("MegabyteOfDigits",
               R"({"t":{"dtype":"U8","shape":[)" + std::string(1'000'000, '1') + R"(],"data_offsets":[0,4]}})", 4,
               "number out of range"),
        Header("TwentyMegabytesOfName", "{\"" + std::string(20'000'000, 'n') + "\":1}", 0,
               "a tensor name has 20000000 bytes; at most 4096"),
        Header("LongName", "{" + Entry(std::string(4097, 'n'), 0, 4) + "}", 4,
               "a tensor name has 4097 bytes; at most 4096"),
        Header("TooManyTensors", ManyTensors(250'001), 0, "more than 250000 tensors"),
        Header("ManyEmptyTensorsAreUnknown", ManyTensors(20'000) + " ", 1,
               "the tensors end at byte 0 of the data, but the file holds 1 bytes"),
        Header("TooManyValues", R"({"__metadata__":{"k":")" + std::string(5'000'000, 'v') + R"(", "k":""}})", 0,
               "__metadata__: duplicate key")),
    NameOf);

INSTANTIATE_TEST_SUITE_P(
    M5M8Offsets, HostileModelTest,
    ::testing::Values(
        Header("HoleAtTheStart", "{" + Entry("t", 1, 4) + "}", 4,
               "tensor \"t\": begins at byte 1 of the data, but byte 0 is the next"),
        Header("HoleBetween", "{" + Entry("s", 0, 1) + "," + Entry("t", 2, 4) + "}", 4,
               "tensor \"t\": begins at byte 2 of the data, but byte 1 is the next"),
        Header("Overlap", "{" + Entry("s", 0, 3) + "," + Entry("t", 2, 4) + "}", 4,
               "tensor \"t\": begins at byte 2 of the data, but byte 3 is the next"),
        Header("SameBytesTwice", "{" + Entry("s", 0, 4) + "," + Entry("t", 0, 4) + "}", 4,
               "begins at byte 0 of the data, but byte 4 is the next"),
        Header("OneInsideTheOther", "{" + Entry("s", 0, 4) + "," + Entry("t", 1, 2) + "}", 4,
               "tensor \"t\": begins at byte 1 of the data, but byte 4 is the next"),
        Tensor("Backwards", R"("dtype":"U8","shape":[4],"data_offsets":[4,0])",
               "tensor \"t\": data_offsets [4, 0] run backwards"),
        Tensor("NegativeOffset", R"("dtype":"U8","shape":[4],"data_offsets":[-4,0])",
               "tensor \"t\".data_offsets: the negative number -4 where none belongs"),
        Tensor("MinusZeroOffset", R"("dtype":"U8","shape":[4],"data_offsets":[-0,4])",
               "tensor \"t\".data_offsets: the negative number 0"),
        Tensor("OffsetBeyondTheFile", R"("dtype":"U8","shape":[5],"data_offsets":[0,5])",
               "the tensors end at byte 5 of the data, but the file holds 4 bytes"),
        Tensor("OffsetTwoTo53", R"("dtype":"U8","shape":[9007199254740992],"data_offsets":[0,9007199254740992])",
               "the tensors end at byte 9007199254740992"),
        Tensor("OffsetAboveTwoTo53", R"("dtype":"U8","shape":[4],"data_offsets":[0,9007199254740993])",
               "tensor \"t\".data_offsets: an integer above 2^53"),
        Tensor("OffsetTwoTo64", R"("dtype":"U8","shape":[4],"data_offsets":[0,18446744073709551616])",
               "tensor \"t\".data_offsets: a number with a fraction"),
        Tensor("OffsetFraction", R"("dtype":"U8","shape":[4],"data_offsets":[0,4.0])",
               "tensor \"t\".data_offsets: a number with a fraction"),
        Tensor("OffsetText", R"("dtype":"U8","shape":[4],"data_offsets":[0,"4"])",
               "tensor \"t\".data_offsets: a string where none belongs"),
        Tensor("OneOffset", R"("dtype":"U8","shape":[4],"data_offsets":[4])",
               "tensor \"t\": data_offsets needs two numbers"),
        Tensor("ThreeOffsets", R"("dtype":"U8","shape":[4],"data_offsets":[0,4,4])",
               "tensor \"t\".data_offsets: more than 2 numbers"),
        Tensor("OffsetsNoArray", R"("dtype":"U8","shape":[4],"data_offsets":4)",
               "tensor \"t\".data_offsets: a number where none belongs"),
        Tensor("SizeTooSmall", R"("dtype":"F32","shape":[1],"data_offsets":[0,3])",
               "tensor \"t\": shape [1] of F32 needs 4 bytes, but data_offsets span 3"),
        Tensor("SizeTooLarge", R"("dtype":"F16","shape":[1],"data_offsets":[0,4])",
               "tensor \"t\": shape [1] of F16 needs 2 bytes, but data_offsets span 4"),
        Tensor("SizeOfEmptyShape", R"("dtype":"F32","shape":[0],"data_offsets":[0,4])",
               "tensor \"t\": shape [0] of F32 needs 0 bytes, but data_offsets span 4"),
        Tensor("ProductOverflows", R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4])",
               "tensor \"t\": shape [4294967296, 4294967296] of F32 does not make a whole number of bytes below 2^61"),
        Tensor("ProductOverflowsToFour",
               R"("dtype":"F32","shape":[2147483649,2147483649,1073741825,4],"data_offsets":[0,4])",
               "does not make a whole number of bytes below 2^61"),
        Tensor("ProductOverflowsBeforeZero", R"("dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0])",
               "does not make a whole number of bytes"),
        Tensor("BitsOverflow", R"("dtype":"F64","shape":[1073741824,1073741824],"data_offsets":[0,4])",
               "does not make a whole number of bytes"),
        Header("DataTooLong", "{" + Entry("t", 0, 4) + "}", 5,
               "the tensors end at byte 4 of the data, but the file holds 5 bytes of it"),
        Header("DataTooShort", "{" + Entry("t", 0, 4) + "}", 3,
               "the tensors end at byte 4 of the data, but the file holds 3 bytes of it"),
        Header("DataWithoutTensors", "{}", 1,
               "the tensors end at byte 0 of the data, but the file holds 1 bytes of it"),
        Bytes("Polyglot", SafetensorsBytes(TinyTensors()) + "PK\x05\x06" + std::string(18, '\0'),
              "header from byte 8: the tensors end at byte")),
    NameOf);

INSTANTIATE_TEST_SUITE_P(
    M9Entries, HostileModelTest,
    ::testing::Values(
        Tensor("UnknownDtype", R"("dtype":"F128","shape":[4],"data_offsets":[0,4])",
               "tensor \"t\": unknown dtype \"F128\""),
        Tensor("LowerCaseDtype", R"("dtype":"f32","shape":[1],"data_offsets":[0,4])",
               "tensor \"t\": unknown dtype \"f32\""),
        Tensor("EmptyDtype", R"("dtype":"","shape":[4],"data_offsets":[0,4])", "tensor \"t\": unknown dtype \"\""),
        Tensor("ControlCharactersInDtype", R"("dtype":"\u001b[2J","shape":[4],"data_offsets":[0,4])",
               "unknown dtype \"?[2J\""),
        Tensor("NumericDtype", R"("dtype":0,"shape":[4],"data_offsets":[0,4])",
               "tensor \"t\".dtype: a number where none belongs"),
        Tensor("NullDtype", R"("dtype":null,"shape":[4],"data_offsets":[0,4])",
               "tensor \"t\".dtype: null where none belongs"),
        Tensor("ObjectDtype", R"("dtype":{},"shape":[4],"data_offsets":[0,4])",
               "tensor \"t\".dtype: an object where none belongs"),
        Tensor("HalfAByte", R"("dtype":"F4","shape":[7],"data_offsets":[0,4])",
               "tensor \"t\": shape [7] of F4 does not make a whole number of bytes"),
        Tensor("SixBits", R"("dtype":"F6_E2M3","shape":[5],"data_offsets":[0,4])",
               "shape [5] of F6_E2M3 does not make a whole number of bytes"),
        Tensor("RankNine", R"("dtype":"U8","shape":[1,1,1,1,1,1,1,1,4],"data_offsets":[0,4])",
               "tensor \"t\".shape: more than 8 numbers"),
        Tensor("NegativeDim", R"("dtype":"U8","shape":[-4],"data_offsets":[0,4])",
               "tensor \"t\".shape: the negative number -4"),
        Tensor("TwoNegativeDims", R"("dtype":"U8","shape":[-2,-2],"data_offsets":[0,4])",
               "tensor \"t\".shape: the negative number -2"),
        Tensor("FractionDim", R"("dtype":"U8","shape":[4.0],"data_offsets":[0,4])",
               "tensor \"t\".shape: a number with a fraction"),
        Tensor("ExponentDim", R"("dtype":"U8","shape":[4e0],"data_offsets":[0,4])",
               "tensor \"t\".shape: a number with a fraction"),
        Tensor("DimAboveTwoTo53", R"("dtype":"U8","shape":[9007199254740993],"data_offsets":[0,4])",
               "tensor \"t\".shape: an integer above 2^53"),
        Tensor("DimTwoTo64PlusFour", R"("dtype":"U8","shape":[18446744073709551620],"data_offsets":[0,4])",
               "tensor \"t\".shape: a number with a fraction"),
        Tensor("TextDim", R"("dtype":"U8","shape":["4"],"data_offsets":[0,4])",
               "tensor \"t\".shape: a string where none belongs"),
        Tensor("NullDim", R"("dtype":"U8","shape":[null],"data_offsets":[0,4])",
               "tensor \"t\".shape: null where none belongs"),
        Tensor("BoolDim", R"("dtype":"U8","shape":[true],"data_offsets":[0,4])",
               "tensor \"t\".shape: a boolean where none belongs"),
        Tensor("ObjectDim", R"("dtype":"U8","shape":[{}],"data_offsets":[0,4])", "nested deeper than 3 levels"),
        Tensor("ShapeNoArray", R"("dtype":"U8","shape":4,"data_offsets":[0,4])",
               "tensor \"t\".shape: a number where none belongs"),
        Tensor("NoDtype", R"("shape":[4],"data_offsets":[0,4])",
               "tensor \"t\": dtype, shape or data_offsets is missing"),
        Tensor("NoShape", R"("dtype":"U8","data_offsets":[0,4])",
               "tensor \"t\": dtype, shape or data_offsets is missing"),
        Tensor("NoOffsets", R"("dtype":"U8","shape":[4])", "tensor \"t\": dtype, shape or data_offsets is missing"),
        Tensor("NothingInside", "", "tensor \"t\": dtype, shape or data_offsets is missing"),
        Tensor("UnknownField", R"("dtype":"U8","shape":[4],"data_offsets":[0,4],"x":1)",
               "tensor \"t\": unknown key \"x\""),
        Tensor("DuplicateShape", R"("dtype":"U8","shape":[4],"shape":[4],"data_offsets":[0,4])",
               "tensor \"t\": duplicate key"),
        Tensor("DuplicateOffsets", R"("dtype":"U8","shape":[4],"data_offsets":[0,1],"data_offsets":[0,4])",
               "tensor \"t\": duplicate key"),
        Tensor("DuplicateDtype", R"("dtype":"U8","dtype":"I8","shape":[4],"data_offsets":[0,4])",
               "tensor \"t\": duplicate key"),
        Header("DuplicateTensor", "{" + Entry("t", 0, 4) + "," + Entry("t", 0, 4) + "}", 4, "duplicate key \"t\""),
        Header("DuplicateTensorByEscape", "{" + Entry("t", 0, 4) + "," + Entry("\\u0074", 0, 4) + "}", 4,
               "duplicate key \"t\""),
        Header("TensorIsNumber", R"({"t":4})", 4, "tensor \"t\": a number where none belongs"),
        Header("TensorIsNull", R"({"t":null})", 4, "tensor \"t\": null where none belongs"),
        Header("TensorIsText", R"({"t":"U8"})", 4, "tensor \"t\": a string where none belongs"),
        Header("TensorIsArray", R"({"t":["U8",[4],[0,4]]})", 4, "tensor \"t\": an array where none belongs"),
        Header("MetadataNumber", R"({"__metadata__":{"a":1}})", 0, "__metadata__: a number where none belongs"),
        Header("MetadataNull", R"({"__metadata__":{"a":null}})", 0, "__metadata__: null where none belongs"),
        Header("MetadataNested", R"({"__metadata__":{"a":{}}})", 0, "__metadata__: an object where none belongs"),
        Header("MetadataList", R"({"__metadata__":{"a":[]}})", 0, "__metadata__: an array where none belongs"),
        Header("MetadataIsText", R"({"__metadata__":"pt"})", 0, "__metadata__: a string where none belongs"),
        Header("MetadataTwice", R"({"__metadata__":{},"__metadata__":{}})", 0, "duplicate key \"__metadata__\""),
        Header("MetadataDuplicateKey", R"({"__metadata__":{"a":"","a":""}})", 0, "__metadata__: duplicate key")),
    NameOf);

INSTANTIATE_TEST_SUITE_P(
    M10Index, HostileModelTest,
    ::testing::Values(
        Index(
            "ShardMissing",
            [](const TempFolder& folder, WeightMap&) { std::filesystem::remove(folder.PathOf("b.safetensors")); },
            "index.json: weight_map names the file \"b.safetensors\", which is not there"),
        Index(
            "TensorNotInItsShard", [](const TempFolder&, WeightMap& map) { map[0].second = "b.safetensors"; },
            "weight_map puts the tensor \"model.embed_tokens.weight\" into \"b.safetensors\", but it is in "
            "\"a.safetensors\""),
        Index(
            "TensorInNoShard", [](const TempFolder&, WeightMap& map) { map.emplace_back("ghost", "a.safetensors"); },
            "weight_map puts the tensor \"ghost\" into \"a.safetensors\", which does not hold it"),
        Index(
            "TensorNotInTheIndex", [](const TempFolder&, WeightMap& map) { map.erase(map.begin()); },
            "weight_map lacks the tensor \"model.embed_tokens.weight\" of \"a.safetensors\""),
        Index(
            "TensorInTheIndexTwice", [](const TempFolder&, WeightMap& map) { map.push_back(map[0]); },
            "index.json: a tensor is in weight_map twice"),
        Index(
            "TensorInTwoShards",
            [](const TempFolder& folder, WeightMap&) {
              folder.Write("b.safetensors", SafetensorsBytes(TinyTensors()));
            },
            "is in a.safetensors too"),
        Index(
            "SecondShardNotInTheIndex", [](const TempFolder&, WeightMap& map) { map.resize(8); },
            "tensor \"model.layers.0.self_attn.o_proj.weight\" is missing"),
        Index(
            "ShardEmpty", [](const TempFolder& folder, WeightMap&) { folder.Write("a.safetensors", ""); },
            "a.safetensors: has 0 bytes"),
        Index(
            "ShardCut",
            [](const TempFolder& folder, WeightMap&) {
              std::filesystem::resize_file(folder.PathOf("b.safetensors"), 2000);
            },
            "b.safetensors: header from byte 8: the tensors end at byte"),
        Index(
            "ShardIsGarbage",
            [](const TempFolder& folder, WeightMap&) { folder.Write("b.safetensors", std::string(1000, 'x')); },
            "b.safetensors: byte 0: header length is"),
        Index(
            "TooManyShards",
            [](const TempFolder& folder, WeightMap& map) {
              for (int i = 0; i < 1100; ++i) map.emplace_back(absl::StrCat("t", i), absl::StrCat(i, ".safetensors"));
              (void)folder;
            },
            "index.json: more than 1024 files"),
        IndexText("IndexEmpty", "", "not valid JSON"), IndexText("IndexArray", "[]", "weight_map is missing"),
        IndexText("IndexNumber", "1", "weight_map is missing"),
        IndexText("IndexWithoutMap", R"({"metadata":{}})", "weight_map is missing"),
        IndexText("MapIsArray", R"({"weight_map":["a"]})", "weight_map is missing"),
        IndexText("MapIsNull", R"({"weight_map":null})", "weight_map is missing"),
        IndexText("MapInsideMetadata", R"({"metadata":{"weight_map":{"t":"a.safetensors"}}})", "weight_map is missing"),
        IndexText("FileIsNumber", R"({"weight_map":{"t":1}})", "weight_map: \"t\" is not a file name"),
        IndexText("FileIsNull", R"({"weight_map":{"t":null}})", "weight_map: \"t\" is not a file name"),
        IndexText("FileIsArray", R"({"weight_map":{"t":["a"]}})", "weight_map: \"t\" is not a file name"),
        IndexText("FileIsObject", R"({"weight_map":{"t":{"a":"b"}}})", "weight_map: \"t\" is not a file name"),
        IndexText("MapTwice", R"({"weight_map":{},"weight_map":{}})", "duplicate key \"weight_map\""),
        IndexText("IndexTrailingBytes", R"({"weight_map":{}}})", "not valid JSON"),
        IndexText("IndexByteOrderMark", "\xef\xbb\xbf{}", "begins with a byte order mark"),
        IndexText("IndexDeep", std::string(1'000'000, '['), "nested deeper than 8 levels"),
        IndexText("IndexTooLarge", "{\"x\":\"" + std::string(34'000'000, 'x') + "\"}", "has 34000008 bytes; at most 33554432 are read"),
        Folder(
            "EmptyMap",
            [](const TempFolder& folder) { folder.Write("model.safetensors.index.json", R"({"weight_map":{}})"); },
            "tensor \"model.embed_tokens.weight\" is missing")),
    NameOf);

INSTANTIATE_TEST_SUITE_P(
    M11Paths, HostileModelTest,
    ::testing::Values(
        RenamedShard("ShardUpwards", "../a.safetensors", "has a path or a control character in it"),
        RenamedShard("ShardAbsolute", "/etc/passwd", "has a path or a control character in it"),
        RenamedShard("ShardInSubfolder", "sub/a.safetensors", "has a path or a control character in it"),
        RenamedShard("ShardDot", ".", "has a path or a control character in it"),
        RenamedShard("ShardDotDot", "..", "has a path or a control character in it"),
        RenamedShard("ShardWithoutName", "", "has a path or a control character in it, is empty"),
        RenamedShard("ShardWithNul", "a.safetensors\\u0000x", "has a path or a control character in it"),
        RenamedShard("ShardLongName", std::string(300, 'x'),
                     "has a path or a control character in it, is empty, or is too long"),
        Index(
            "ShardLinkOut",
            [](const TempFolder& folder, WeightMap& map) {
              folder.Link("out.safetensors", "/etc/passwd");
              map[0].second = "out.safetensors";
            },
            "out.safetensors: is a link that leads out of the model folder"),
        Index(
            "ShardIsFifo",
            [](const TempFolder& folder, WeightMap& map) {
              CHECK(mkfifo(folder.PathOf("fifo").c_str(), 0600) == 0);
              map[0].second = "fifo";
            },
            "fifo: is not a regular file"),
        Index(
            "ShardIsFolder",
            [](const TempFolder& folder, WeightMap& map) {
              std::filesystem::create_directory(folder.PathOf("sub"));
              map[0].second = "sub";
            },
            "sub: is not a regular file"),
        Folder(
            "WeightsAreFifo",
            [](const TempFolder& folder) { CHECK(mkfifo(folder.PathOf("model.safetensors").c_str(), 0600) == 0); },
            "model.safetensors: is not a regular file"),
        Folder(
            "WeightsAreFolder",
            [](const TempFolder& folder) { std::filesystem::create_directory(folder.PathOf("model.safetensors")); },
            "model.safetensors: is not a regular file"),
        Folder(
            "WeightsAreDevice", [](const TempFolder& folder) { folder.Link("model.safetensors", "/dev/zero"); },
            "model.safetensors: is a link that leads out"),
        Folder(
            "WeightsLinkOut",
            [](const TempFolder& folder) { folder.Link("model.safetensors", "../../../../../../etc/passwd"); },
            "model.safetensors: is a link that leads out"),
        Folder(
            "WeightsLinkThroughProc",
            [](const TempFolder& folder) { folder.Link("model.safetensors", "/proc/self/fd/0"); },
            "model.safetensors: "),
        Folder(
            "WeightsLinkToThemselves",
            [](const TempFolder& folder) { folder.Link("model.safetensors", "model.safetensors"); },
            "model.safetensors: cannot be opened"),
        Folder(
            "WeightsDanglingLink", [](const TempFolder& folder) { folder.Link("model.safetensors", "nothing"); },
            "model.safetensors: is a link to nothing"),
        Folder(
            "IndexIsFifo",
            [](const TempFolder& folder) {
              CHECK(mkfifo(folder.PathOf("model.safetensors.index.json").c_str(), 0600) == 0);
            },
            "index.json: is not a regular file"),
        Folder(
            "NoConfig", [](const TempFolder& folder) { std::filesystem::remove(folder.PathOf("config.json")); },
            "config.json: not in the model folder"),
        Folder(
            "ConfigIsFifo",
            [](const TempFolder& folder) {
              std::filesystem::remove(folder.PathOf("config.json"));
              CHECK(mkfifo(folder.PathOf("config.json").c_str(), 0600) == 0);
            },
            "config.json: is not a regular file"),
        Folder(
            "ConfigTooLarge", [](const TempFolder& folder) { folder.Write("config.json", std::string(2 << 20, ' ')); },
            "config.json: has 2097152 bytes; at most 1048576 are read"),
        Folder(
            "GenerationConfigIsGarbage", [](const TempFolder& folder) { folder.Write("generation_config.json", "}"); },
            "generation_config.json: not valid JSON")),
    NameOf);

const std::string kQ = "model.layers.0.self_attn.q_proj.weight";

INSTANTIATE_TEST_SUITE_P(
    M14Tensors, HostileModelTest,
    ::testing::Values(
        Changed(
            "EmbeddingMissing", [](auto& tensors) { Remove(tensors, "embed_tokens"); },
            "tensor \"model.embed_tokens.weight\" is missing"),
        Changed(
            "HeadMissing", [](auto& tensors) { Remove(tensors, "lm_head"); }, "tensor \"lm_head.weight\" is missing"),
        Changed(
            "NormMissing", [](auto& tensors) { Remove(tensors, "input_layernorm"); },
            "tensor \"model.layers.0.input_layernorm.weight\" is missing"),
        Changed(
            "RouterMissing", [](auto& tensors) { Remove(tensors, "moe.gate"); },
            "tensor \"model.layers.0.block_sparse_moe.gate.weight\" is missing"),
        Changed(
            "ExpertMissing", [](auto& tensors) { Remove(tensors, "experts.1."); },
            "tensor \"model.layers.0.block_sparse_moe.experts.1.w1.weight\" is missing"),
        Changed(
            "AllExpertsMissing", [](auto& tensors) { Remove(tensors, "experts."); },
            "tensor \"model.layers.0.block_sparse_moe.experts.0.w1.weight\" is missing"),
        Changed(
            "Nothing", [](auto& tensors) { tensors.clear(); }, "tensor \"lm_head.weight\" is missing"),
        Changed(
            "LayerMissing", [](auto&) {}, "duplicate key \"num_hidden_layers\"", R"(, "num_hidden_layers": 2)"),
        Changed(
            "OneTensorTooMany", [](auto& tensors) { tensors.push_back(F32Tensor("adapter", {1}, {1})); },
            "tensor \"adapter\" at byte"),
        Changed(
            "OneExpertTooMany",
            [](auto& tensors) {
              tensors.push_back(F32Tensor("model.layers.0.block_sparse_moe.experts.2.w1.weight", {1}, {1}));
            },
            "experts.2.w1.weight\" at byte"),
        Changed(
            "OneLayerTooMany",
            [](auto& tensors) {
              tensors.push_back(F32Tensor("model.layers.1.input_layernorm.weight", {8}, std::vector<float>(8)));
            },
            "tensor \"model.layers.1.input_layernorm.weight\" at byte"),
        Changed(
            "BiasTooMany",
            [](auto& tensors) {
              tensors.push_back(F32Tensor("model.layers.0.self_attn.q_proj.bias", {8}, std::vector<float>(8)));
            },
            "q_proj.bias\" at byte"),
        Changed(
            "NameWithEscapeSequence", [](auto& tensors) { tensors.push_back(F32Tensor("\\u001b[31m", {1}, {1})); },
            "tensor \"?[31m\" at byte"),
        Changed(
            "NameInOtherCase",
            [](auto& tensors) { Get(tensors, "q_proj.weight").name = "model.layers.0.self_attn.Q_proj.weight"; },
            "tensor \"" + kQ + "\" is missing"),
        Changed(
            "Transposed",
            [](auto& tensors) {
              Get(tensors, "k_proj.weight").shape = {8, 4};
            },
            ": shape is [8, 4], but config.json calls for [4, 8]"),
        Changed(
            "Flat", [](auto& tensors) { Get(tensors, "q_proj.weight").shape = {64}; },
            ": shape is [64], but config.json calls for [8, 8]"),
        Changed(
            "RankThree",
            [](auto& tensors) {
              Get(tensors, "q_proj.weight").shape = {1, 8, 8};
            },
            ": shape is [1, 8, 8], but config.json calls for [8, 8]"),
        Changed(
            "NormAsMatrix",
            [](auto& tensors) {
              Get(tensors, "model.norm.weight").shape = {1, 8};
            },
            ": shape is [1, 8], but config.json calls for [8]"),
        Changed(
            "Scalar",
            [](auto& tensors) { Get(tensors, "model.norm.weight") = F32Tensor("model.norm.weight", {}, {1}); },
            ": shape is [], but config.json calls for [8]"),
        Changed(
            "EmptyTensor",
            [](auto& tensors) { Get(tensors, "model.norm.weight") = F32Tensor("model.norm.weight", {0}, {}); },
            ": shape is [0], but config.json calls for [8]"),
        Changed(
            "ExpertsOfOtherWidth",
            [](auto& tensors) {
              Get(tensors, "experts.1.w1.weight") =
                  F32Tensor("model.layers.0.block_sparse_moe.experts.1.w1.weight", {5, 8}, std::vector<float>(40));
            },
            ": shape is [5, 8], but config.json calls for [6, 8]"),
        Changed(
            "Integers", [](auto& tensors) { Get(tensors, "q_proj.weight").dtype = "I32"; },
            ": type is I32; weights must be F32, F16 or BF16"),
        Changed(
            "Booleans",
            [](auto& tensors) {
              Get(tensors, "model.norm.weight") = RawTensor{"model.norm.weight", "BOOL", {8}, std::string(8, '\1')};
            },
            ": type is BOOL; weights must be"),
        Changed(
            "Float8",
            [](auto& tensors) {
              Get(tensors, "q_proj.weight") = RawTensor{kQ, "F8_E4M3", {8, 8}, std::string(64, '\0')};
            },
            ": type is F8_E4M3; weights must be"),
        Changed(
            "Float64",
            [](auto& tensors) {
              Get(tensors, "q_proj.weight") = RawTensor{kQ, "F64", {8, 8}, std::string(512, '\0')};
            },
            ": type is F64; weights must be"),
        Changed(
            "BothLayouts",
            [](auto& tensors) {
              tensors.push_back(F32Tensor("model.layers.0.mlp.experts.down_proj", {2, 8, 6}, std::vector<float>(96)));
            },
            "mlp.experts.down_proj\" at byte"),
        Folder(
            "TinyFileForAHugeModel",
            [](const TempFolder& folder) {
              folder.Write("config.json",
                           R"({"model_type": "mixtral", "num_hidden_layers": 4, "num_local_experts": 65536})");
              folder.Write("model.safetensors", SafetensorsBytes(TinyTensors()));
            },
            "\nand 786")),
    NameOf);

// ------------------------------------------------------------------------------------------------- what must not be
// refused

TEST(HostileModelTestBase, TheUnspoiledModelLoads) {
  TempFolder folder;
  folder.Write("config.json", TinyConfig());
  folder.Write("model.safetensors", SafetensorsBytes(TinyTensors()));
  const auto model = LoadModel(folder.path());
  EXPECT_TRUE(model.ok()) << model.status();
}

}  // namespace
}  // namespace switchyard
