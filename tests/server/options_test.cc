#include "server/options.h"

#include <gtest/gtest.h>

#include <map>

namespace switchyard {
namespace {

struct Given {
  std::vector<std::string> arguments;
  std::map<std::string, std::string> environment;
  std::map<std::string, std::string> files;
};

ParsedOptions Parse(const Given& given) {
  OptionSources sources;
  sources.arguments = given.arguments;
  const auto look_up = [](const auto& map) {
    return [&map](const std::string& key) -> std::optional<std::string> {
      const auto found = map.find(key);
      return found == map.end() ? std::nullopt : std::optional<std::string>(found->second);
    };
  };
  sources.environment = look_up(given.environment);
  sources.read_file = look_up(given.files);
  return ParseOptions(sources);
}

TEST(OptionsTest, DefaultsNeedOnlyTheModel) {
  const ParsedOptions parsed = Parse({{"--model", "/models/demo/"}, {}, {}});
  EXPECT_TRUE(parsed.problems.empty());
  EXPECT_EQ(parsed.options.model.served_model_name, "demo");
  EXPECT_EQ(parsed.options.grpc.port, 50051);
  EXPECT_EQ(parsed.options.admin.admin_port, 8002);
  EXPECT_TRUE(parsed.options.scheduling.enable_prefix_caching);
}

TEST(OptionsTest, IPv6AddressesGetBrackets) {
  EXPECT_EQ(HostAndPort("::", 1), "[::]:1");
  EXPECT_EQ(HostAndPort("[::1]", 1), "[::1]:1");
  EXPECT_EQ(HostAndPort("127.0.0.1", 1), "127.0.0.1:1");
}

TEST(OptionsTest, FlagWinsOverEnvironmentOverFileOverDefault) {
  Given given;
  given.arguments = {"--model", "m", "--config", "c.yaml"};
  given.files["c.yaml"] = "max-num-seqs: 10\nblock-size: 32\nport: 1111\n";
  EXPECT_EQ(Parse(given).options.scheduling.max_num_seqs, 10);
  given.environment["SWITCHYARD_MAX_NUM_SEQS"] = "20";
  EXPECT_EQ(Parse(given).options.scheduling.max_num_seqs, 20);
  given.arguments.push_back("--max-num-seqs=30");
  const ParsedOptions parsed = Parse(given);
  EXPECT_TRUE(parsed.problems.empty());
  EXPECT_EQ(parsed.options.scheduling.max_num_seqs, 30);
  EXPECT_EQ(parsed.options.scheduling.block_size, 32);
  EXPECT_EQ(parsed.options.grpc.port, 1111);
}

TEST(OptionsTest, SwitchesCanBeNegatedInEverySource) {
  EXPECT_FALSE(
      Parse({{"--model", "m", "--no-enable-prefix-caching"}, {}, {}}).options.scheduling.enable_prefix_caching);
  EXPECT_FALSE(
      Parse({{"--model", "m", "--enable-prefix-caching=false"}, {}, {}}).options.scheduling.enable_prefix_caching);
  EXPECT_FALSE(Parse({{"--model", "m"}, {{"SWITCHYARD_ENABLE_PREFIX_CACHING", "0"}}, {}})
                   .options.scheduling.enable_prefix_caching);
  EXPECT_TRUE(Parse({{"--model", "m", "--no-enable-prefix-caching", "--enable-prefix-caching"}, {}, {}})
                  .options.scheduling.enable_prefix_caching)
      << "the last flag counts";
}

TEST(OptionsTest, BytesTakeSuffixes) {
  for (const auto& [text, bytes] : std::map<std::string, int64_t>{{"1048576", 1 << 20},
                                                                  {"512M", int64_t{512} << 20},
                                                                  {"4G", int64_t{4} << 30},
                                                                  {"4g", int64_t{4} << 30},
                                                                  {"4GiB", int64_t{4} << 30}}) {
    EXPECT_EQ(Parse({{"--model", "m", "--kv-cache-memory", text}, {}, {}}).options.scheduling.kv_cache_memory, bytes)
        << text;
  }
}

TEST(OptionsTest, UnderscoresAreHyphens) {
  EXPECT_EQ(Parse({{"--model", "m", "--max_num_seqs", "3"}, {}, {}}).options.scheduling.max_num_seqs, 3);
  EXPECT_EQ(Parse({{"--model", "m", "--config", "c"}, {}, {{"c", "max_num_seqs: 3"}}}).options.scheduling.max_num_seqs,
            3);
}

TEST(OptionsTest, KubernetesServiceVariableIsNoPort) {
  const ParsedOptions parsed = Parse({{"--model", "m"}, {{"SWITCHYARD_PORT", "tcp://10.0.0.1:50051"}}, {}});
  EXPECT_TRUE(parsed.problems.empty());
  EXPECT_EQ(parsed.options.grpc.port, 50051);
}

TEST(OptionsTest, HelpAndVersionWinOverProblems) {
  const ParsedOptions help = Parse({{"--bad", "--help"}, {}, {}});
  EXPECT_TRUE(help.problems.empty());
  for (const char* flag :
       {"--model FOLDER", "--[no-]enable-prefix-caching", "--kv-cache-memory BYTES", "Scheduling and KV cache:"}) {
    EXPECT_NE(help.text.find(flag), std::string::npos) << flag;
  }
  EXPECT_EQ(Parse({{"--version"}, {}, {}}).text.rfind("switchyard-server ", 0), 0u);
}

TEST(OptionsTest, AllProblemsAreListedAtOnce) {
  Given given;
  given.arguments = {"--max-num-seqs", "0", "--bogus", "5", "--config", "c", "--dtype=int3"};
  given.environment["SWITCHYARD_BLOCK_SIZE"] = "many";
  given.files["c"] = "port: -1\nnonsense: 3\n";
  const ParsedOptions parsed = Parse(given);
  EXPECT_EQ(parsed.problems.size(), 7u) << testing::PrintToString(parsed.problems);
}

struct BadCase {
  Given given;
  std::string problem;  // how the one problem begins
};

TEST(OptionsTest, EachMistakeIsNamedWithItsRemedy) {
  const auto flag = [](std::vector<std::string> arguments, const std::string& problem) {
    arguments.insert(arguments.begin(), {"--model", "m"});
    return BadCase{{std::move(arguments), {}, {}}, problem};
  };
  const auto file = [](const std::string& text, const std::string& problem) {
    return BadCase{{{"--model", "m", "--config", "c"}, {}, {{"c", text}}}, problem};
  };
  const auto variable = [](const std::string& name, const std::string& value, const std::string& problem) {
    return BadCase{{{"--model", "m"}, {{name, value}}, {}}, problem};
  };
  const std::vector<BadCase> cases = {
      {{}, "--model is missing; give the folder of a Hugging Face model"},
      flag({"--bogus"}, "--bogus is no flag of this server"),
      flag({"--bogus=1"}, "--bogus is no flag of this server"),
      flag({"--bogus", "1"}, "--bogus is no flag of this server"),
      flag({"--max-num-sequences", "1"}, "--max-num-sequences is no flag of this server, did you mean --max-num-seqs?"),
      flag({"--no-port"}, "--no-port is no flag of this server"),
      flag({"-p", "--port", "1"}, "\"-p\" is not a flag"),
      flag({"stray"}, "\"stray\" is not a flag; flags start with -- (see --help)"),
      flag({"--"}, "\"--\" is not a flag"),
      flag({"--port"}, "--port needs a value"),
      flag({"--port", "--host", "x"}, "--port needs a value"),
      flag({"--port="}, "--port is \"\"; use a whole number from 0 to 65535"),
      flag({"--port=65536"}, "--port is \"65536\"; use a whole number from 0 to 65535"),
      flag({"--port=-1"}, "--port is \"-1\""),
      flag({"--port=50k"}, "--port is \"50k\""),
      flag({"--port=1.5"}, "--port is \"1.5\""),
      flag({"--port= 1"}, "--port is \" 1\""),
      flag({"--port=99999999999999999999"}, "--port is \"99999999999999999999\""),
      flag({"--max-connection-age=2000001"}, "--max-connection-age is \"2000001\"; use seconds from 0 to 2e+06"),
      flag({"--max-num-seqs=0"}, "--max-num-seqs is \"0\"; use a whole number from 1 to 65536"),
      flag({"--max-num-batched-tokens=0"}, "--max-num-batched-tokens is \"0\""),
      flag({"--block-size=0"}, "--block-size is \"0\"; use a multiple of 16 up to 1024"),
      flag({"--block-size=24"}, "--block-size is \"24\""),
      flag({"--block-size=1040"}, "--block-size is \"1040\""),
      flag({"--max-model-len=-5"}, "--max-model-len is \"-5\""),
      flag({"--num-threads=2000"}, "--num-threads is \"2000\"; use a whole number from 0 to 1024"),
      flag({"--max-num-queued-reqs=0"}, "--max-num-queued-reqs is \"0\""),
      flag({"--max-num-queued-tokens=0"}, "--max-num-queued-tokens is \"0\""),
      flag({"--kv-cache-memory=1K"}, "--kv-cache-memory is \"1K\"; use bytes from 4096 on, or 512M, 4G"),
      flag({"--kv-cache-memory=-4G"}, "--kv-cache-memory is \"-4G\""),
      flag({"--kv-cache-memory=4X"}, "--kv-cache-memory is \"4X\""),
      flag({"--kv-cache-memory=9999999T"}, "--kv-cache-memory is \"9999999T\""),
      flag({"--kv-cache-memory=lots"}, "--kv-cache-memory is \"lots\""),
      flag({"--max-message-bytes=2G"}, "--max-message-bytes is 2147483648; use at most 1G"),
      flag({"--shutdown-timeout=-1"}, "--shutdown-timeout is \"-1\"; use seconds from 0 to 86400"),
      flag({"--shutdown-timeout=nan"}, "--shutdown-timeout is \"nan\""),
      flag({"--shutdown-timeout=inf"}, "--shutdown-timeout is \"inf\""),
      flag({"--keepalive-time=0.5"}, "--keepalive-time is \"0.5\"; use seconds from 1 to 86400"),
      flag({"--dtype=int8"}, "--dtype is \"int8\"; use auto, float32 or bfloat16"),
      flag({"--device=tpu"}, "--device is \"tpu\"; use auto, cpu or cuda"),
      flag({"--load-format=pickle"}, "--load-format is \"pickle\"; use auto, safetensors or dummy"),
      flag({"--scheduling-policy=sjf"}, "--scheduling-policy is \"sjf\"; use fcfs or priority"),
      flag({"--metrics-expert-detail=all"}, "--metrics-expert-detail is \"all\"; use auto, off, layer, topk or full"),
      flag({"--log-level=loud"}, "--log-level is \"loud\"; use debug, info, warning or error"),
      flag({"--enable-prefix-caching=maybe"}, "--enable-prefix-caching is \"maybe\"; use true or false"),
      flag({"--no-enable-prefix-caching=true2"}, "--no-enable-prefix-caching takes no value"),
      flag({"--host="}, "--host is empty; use 1 to 4096 characters"),
      flag({"--host=" + std::string(5000, 'h')}, "--host is not a usable text"),
      flag({"--served-model-name="}, "--served-model-name is empty"),
      flag({"--port=8002"}, "--port and --admin-port are both 8002; use two ports"),
      flag({"--max-num-seqs=600"}, "--max-num-batched-tokens is 512, but each of the --max-num-seqs 600"),
      flag({"--no-enable-chunked-prefill", "--max-model-len=4096"},
           "--max-num-batched-tokens is 512, but with --no-enable-chunked-prefill a prompt of --max-model-len 4096"),
      flag({"--device=cuda", "--cpu-isa=avx2"}, "--cpu-isa is avx2, but --device is cuda; leave one of them out"),
      flag({"--port=\x1b[31m"}, "--port is \"?[31m\""),
      flag({"--port=" + std::string(1000, '9')}, "--port is \"" + std::string(64, '9') + "...\""),
      flag({"--config", "missing.yaml"}, "--config: \"missing.yaml\" cannot be read"),
      flag({"--config"}, "--config needs a value"),
      file("nonsense: 1", "--config: line 1: \"nonsense\" is no setting of this server"),
      file("port: 1\nport: 2", "--config: line 2: port is there twice"),
      file("port: [1, 2]", "--config: line 1: port needs one plain value"),
      file("port: {a: 1}", "--config: line 1: port needs one plain value"),
      file("\nport: x", "--config: line 2: port is \"x\"; use a whole number"),
      file("- port", "--config: the file is not a map of settings"),
      file("just text", "--config: the file is not a map of settings"),
      file("port: 'unfinished", "--config: line "),
      file("port: 1\n\tbad: 2", "--config: line "),
      file("[1]: 2", "--config: line 1: \"?\" is no setting of this server"),
      file("enable-prefix-caching: perhaps", "--config: line 1: enable-prefix-caching is \"perhaps\""),
      variable("SWITCHYARD_PORT", "x", "SWITCHYARD_PORT is \"x\"; use a whole number from 0 to 65535"),
      variable("SWITCHYARD_KV_CACHE_MEMORY", "", "SWITCHYARD_KV_CACHE_MEMORY is \"\"; use bytes"),
      variable("SWITCHYARD_ENABLE_REFLECTION", "2", "SWITCHYARD_ENABLE_REFLECTION is \"2\"; use true or false"),
      variable("SWITCHYARD_CONFIG", "gone.yaml", "--config: \"gone.yaml\" cannot be read"),
  };
  ASSERT_GE(cases.size(), 40u);
  for (const BadCase& bad : cases) {
    const ParsedOptions parsed = Parse(bad.given);
    ASSERT_EQ(parsed.problems.size(), 1u) << bad.problem << " / " << testing::PrintToString(parsed.problems);
    EXPECT_EQ(parsed.problems[0].substr(0, bad.problem.size()), bad.problem);
    EXPECT_LT(parsed.problems[0].size(), 300u);
  }
}

TEST(OptionsTest, TokensNeedAWayThatNobodyReads) {
  const auto problems = [](std::vector<std::string> flags) {
    flags.insert(flags.begin(), {"--model", "m", "--api-key-file", "t"});
    return Parse({flags, {}, {}}).problems;
  };
  ASSERT_EQ(problems({}).size(), 1u);
  EXPECT_NE(problems({})[0].find("--allow-insecure-tokens"), std::string::npos);
  EXPECT_EQ(problems({"--host", "127.example.org"}).size(), 1u) << "that is a name";
  EXPECT_TRUE(problems({"--ssl-certfile", "c", "--ssl-keyfile", "k"}).empty());
  EXPECT_TRUE(problems({"--allow-insecure-tokens"}).empty());
  for (const char* host : {"127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"}) {
    EXPECT_TRUE(problems({"--host", host}).empty()) << host;
  }
}

TEST(OptionsTest, CertificateAndKeyComeTogether) {
  const auto problem = [](std::vector<std::string> flags) {
    flags.insert(flags.begin(), {"--model", "m"});
    const auto problems = Parse({flags, {}, {}}).problems;
    return problems.size() == 1 ? problems[0] : std::to_string(problems.size()) + " problems";
  };
  EXPECT_NE(problem({"--ssl-certfile", "c"}).find("--ssl-keyfile is missing"), std::string::npos);
  EXPECT_NE(problem({"--ssl-keyfile", "k"}).find("--ssl-certfile is missing"), std::string::npos);
  EXPECT_NE(problem({"--ssl-ca-certs", "a"}).find("needs --ssl-certfile"), std::string::npos);
  EXPECT_EQ(problem({"--ssl-certfile", "c", "--ssl-keyfile", "k", "--ssl-ca-certs", "a"}), "0 problems");
}

}  // namespace
}  // namespace switchyard
