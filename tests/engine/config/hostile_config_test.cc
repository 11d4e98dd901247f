// Config files that lie or attack: each is refused with a message that names the key, its value and what is expected,
// quickly and without allocating by what the file claims.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <ostream>
#include <string>

#include "engine/config/model_config.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;

struct HostileConfig {
  const char* name;
  std::string json;
  std::string message;
};

void PrintTo(const HostileConfig& text, std::ostream* out) { *out << text.name; }

std::string Mixtral(const std::string& more) {
  return R"({"model_type": "mixtral", "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 4,
             "num_attention_heads": 4, )" +
         more + "}";
}

std::string Of(const std::string& family, const std::string& more) {
  return R"({"model_type": ")" + family + R"(", )" + more + "}";
}

std::string Repeat(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

class HostileConfigTest : public ::testing::TestWithParam<HostileConfig> {};

TEST_P(HostileConfigTest, IsRefusedWithAReason) {
  const std::clock_t start = std::clock();  // of the process: the machine may be busy with other tests
  const auto config = ParseModelConfig(GetParam().json);
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 1.0);
  ASSERT_FALSE(config.ok());
  EXPECT_TRUE(absl::IsInvalidArgument(config.status()) || absl::IsUnimplemented(config.status())) << config.status();
  EXPECT_THAT(std::string(config.status().message()), HasSubstr("config.json: "));
  EXPECT_THAT(std::string(config.status().message()), HasSubstr(GetParam().message));
  EXPECT_LT(config.status().message().size(), 16384u);
}

std::string NameOf(const ::testing::TestParamInfo<HostileConfig>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(
    M12Text, HostileConfigTest,
    ::testing::Values(
        HostileConfig{"Empty", "", "not valid JSON"}, HostileConfig{"NotJson", "hello", "not valid JSON"},
        HostileConfig{"Array", "[]", "is not a JSON object"}, HostileConfig{"Number", "1", "is not a JSON object"},
        HostileConfig{"Null", "null", "is not a JSON object"},
        HostileConfig{"Truncated", R"({"model_type": "mixtral")", "not valid JSON"},
        HostileConfig{"TrailingBytes", R"({"model_type": "mixtral"}})", "not valid JSON"},
        HostileConfig{"TrailingNul", std::string("{\"model_type\": \"mixtral\"}\0", 26), "NUL at byte 25"},
        HostileConfig{"ByteOrderMark", "\xef\xbb\xbf" + Mixtral("\"x\": 1"), "begins with a byte order mark"},
        HostileConfig{"DuplicateKey", Mixtral(R"("vocab_size": 200)"), "duplicate key \"vocab_size\""},
        HostileConfig{"DuplicateKeyInside", Mixtral(R"("rope_scaling": {"factor": 2, "factor": 3})"),
                      "duplicate key \"factor\""},
        HostileConfig{"InvalidUtf8", Mixtral("\"x\": \"\xff\""), "not valid JSON"},
        HostileConfig{"TooLarge", Mixtral("\"x\": \"" + std::string(2 << 20, 'x') + "\""), "at most 1048576 are read"},
        HostileConfig{"MegabyteOfBrackets", std::string((1 << 20) - 1, '['), "nested deeper than 32 levels"},
        HostileConfig{"DeepObjects", Repeat("{\"a\":", 100) + "1" + Repeat("}", 100), "nested deeper than 32 levels"},
        HostileConfig{"TooManyValues", Mixtral("\"x\": [" + Repeat("0,", 200'000) + "0]"), "more than 100000 values"},
        HostileConfig{"LongNumber", Mixtral("\"x\": " + std::string(1'000'000, '1')), "number out of range"},
        HostileConfig{"NaNLiteral", Mixtral(R"("rms_norm_eps": NaN)"), "not valid JSON"},
        HostileConfig{"HugeExponent", Mixtral(R"("rms_norm_eps": 1e400)"), "number out of range"}),
    NameOf);

INSTANTIATE_TEST_SUITE_P(
    M13Family, HostileConfigTest,
    ::testing::Values(
        HostileConfig{"NoModelType", "{}", "model_type is missing; it must be one of arctic, dbrx"},
        HostileConfig{"NullModelType", R"({"model_type": null})", "model_type is missing"},
        HostileConfig{"NumericModelType", R"({"model_type": 7})", "model_type is 7; it must be a string"},
        HostileConfig{"UnknownModelType", R"({"model_type": "llama"})", "model_type is \"llama\"; served are arctic"},
        HostileConfig{"ControlCharactersInModelType", R"({"model_type": "a\u001b[31mb"})", "model_type is \"a?[31mb\""},
        HostileConfig{"HugeModelType", R"({"model_type": ")" + std::string(100'000, 'm') + "\"}",
                      "mmm...\"; served are"},
        HostileConfig{"WrongAct", Mixtral(R"("hidden_act": "gelu")"),
                      "hidden_act is \"gelu\"; only \"silu\" is served"},
        HostileConfig{"NumericAct", Mixtral(R"("hidden_act": 1)"), "hidden_act is 1; it must be a string"},
        HostileConfig{"Quantized", Mixtral(R"("quantization_config": {"quant_method": "gptq"})"),
                      "quant_method is \"gptq\"; of quantized weights, \"fp8\" and \"mxfp4\" are served"},
        HostileConfig{"QuantizationNoObject", Mixtral(R"("quantization_config": "fp8")"),
                      "quantization_config is \"fp8\"; it must be an object"},
        HostileConfig{"Float64", Mixtral(R"("torch_dtype": "float64")"), "the type \"float64\" is not served"},
        HostileConfig{"NumericDtype", Mixtral(R"("dtype": 16)"), "dtype is 16; it must be a string"},
        HostileConfig{"TwoDtypes", Mixtral(R"("torch_dtype": "float32", "dtype": "bfloat16")"), "they mean the same"},
        HostileConfig{"SigmoidRouter",
                      Of("deepseek", R"("n_routed_experts": 4, "num_experts_per_tok": 1, "scoring_func": "sigmoid")"),
                      "scoring_func is \"sigmoid\"; only \"softmax\" is served"},
        HostileConfig{"GroupedRouter",
                      Of("deepseek", R"("n_routed_experts": 4, "num_experts_per_tok": 1, "topk_method": "noaux_tc")"),
                      "topk_method is \"noaux_tc\"; only \"greedy\" is served"}),
    NameOf);

INSTANTIATE_TEST_SUITE_P(
    M13Sizes, HostileConfigTest,
    ::testing::Values(
        HostileConfig{"VocabZero", R"({"model_type": "mixtral", "vocab_size": 0})",
                      "vocab_size is 0; it must be an integer from 1 to 16777216"},
        HostileConfig{"VocabNegative", R"({"model_type": "mixtral", "vocab_size": -1})", "vocab_size is -1;"},
        HostileConfig{"VocabTwoTo31", R"({"model_type": "mixtral", "vocab_size": 2147483648})",
                      "vocab_size is 2147483648;"},
        HostileConfig{"VocabTwoTo32PlusOne", R"({"model_type": "mixtral", "vocab_size": 4294967297})",
                      "vocab_size is 4294967297;"},
        HostileConfig{"VocabTwoTo64MinusOne", R"({"model_type": "mixtral", "vocab_size": 18446744073709551615})",
                      "vocab_size is 18446744073709551615;"},
        HostileConfig{"VocabFraction", R"({"model_type": "mixtral", "vocab_size": 100.5})",
                      "vocab_size is 100.5; it must be an integer"},
        HostileConfig{"VocabWholeFraction", R"({"model_type": "mixtral", "vocab_size": 100.0})",
                      "vocab_size is 100.0; it must be an integer"},
        HostileConfig{"VocabExponent", R"({"model_type": "mixtral", "vocab_size": 1e300})",
                      "vocab_size is 1e+300; it must be an integer"},
        HostileConfig{"VocabString", R"({"model_type": "mixtral", "vocab_size": "100"})",
                      "vocab_size is \"100\"; it must be an integer"},
        HostileConfig{"VocabBool", R"({"model_type": "mixtral", "vocab_size": true})",
                      "vocab_size is true; it must be an integer"},
        HostileConfig{"VocabList", R"({"model_type": "mixtral", "vocab_size": [1]})",
                      "vocab_size is an array; it must be an integer"},
        HostileConfig{"VocabObject", R"({"model_type": "mixtral", "vocab_size": {}})",
                      "vocab_size is an object; it must be an integer"},
        HostileConfig{"HiddenZero", R"({"model_type": "mixtral", "hidden_size": 0})", "hidden_size is 0;"},
        HostileConfig{"HiddenTooLarge", R"({"model_type": "mixtral", "hidden_size": 1048577})",
                      "hidden_size is 1048577; it must be an integer from 1 to 1048576"},
        HostileConfig{"LayersZero", R"({"model_type": "mixtral", "num_hidden_layers": 0})",
                      "num_hidden_layers is 0; it must be an integer from 1 to 1000"},
        HostileConfig{"LayersBillion", R"({"model_type": "mixtral", "num_hidden_layers": 1000000000})",
                      "num_hidden_layers is 1000000000;"},
        HostileConfig{"LayersBillionQwen",
                      R"({"model_type": "qwen3_moe", "num_hidden_layers": 1000000000, "mlp_only_layers": [1]})",
                      "num_hidden_layers is 1000000000;"},
        HostileConfig{
            "LayersBillionQwen2",
            R"({"model_type": "qwen2_moe", "num_hidden_layers": 1000000000, "use_sliding_window": true, "layer_types": ["full_attention"]})",
            "num_hidden_layers is 1000000000;"},
        HostileConfig{
            "LayersBillionDeepseek",
            R"({"model_type": "deepseek", "num_hidden_layers": 1000000000, "first_k_dense_replace": 1, "n_routed_experts": 4, "num_experts_per_tok": 1})",
            "num_hidden_layers is 1000000000;"},
        HostileConfig{"PositionsZero", R"({"model_type": "mixtral", "max_position_embeddings": 0})",
                      "max_position_embeddings is 0;"},
        HostileConfig{"PositionsHuge", R"({"model_type": "mixtral", "max_position_embeddings": 2000000000})",
                      "max_position_embeddings is 2000000000;"},
        HostileConfig{"ExpertWidthZero", R"({"model_type": "mixtral", "intermediate_size": 0})",
                      "intermediate_size is 0;"},
        HostileConfig{"MoeWidthHuge", R"({"model_type": "qwen3_moe", "moe_intermediate_size": 100000000})",
                      "moe_intermediate_size is 100000000;"},
        HostileConfig{"SharedWidthNegative", R"({"model_type": "qwen2_moe", "shared_expert_intermediate_size": -4})",
                      "shared_expert_intermediate_size is -4;"},
        HostileConfig{"SharedCountHuge",
                      Of("deepseek", R"("n_routed_experts": 4, "num_experts_per_tok": 1, "n_shared_experts": 1000000)"),
                      "n_shared_experts is 1000000;"},
        HostileConfig{"TooManyExpertsInAll",
                      R"({"model_type": "mixtral", "num_hidden_layers": 1000, "num_experts": 65536})",
                      "all layers together have more than 262144 experts"},
        HostileConfig{
            "TooManyParameters",
            R"({"model_type": "mixtral", "num_hidden_layers": 1000, "num_experts": 200, "hidden_size": 1048576, "intermediate_size": 1048576, "head_dim": 128})",
            "parameters; at most 70368744177664 are possible"},
        HostileConfig{"EpsZero", Mixtral(R"("rms_norm_eps": 0)"),
                      "rms_norm_eps is 0; it must be a number from 1e-30 to 1"},
        HostileConfig{"EpsNegative", Mixtral(R"("rms_norm_eps": -1e-5)"), "rms_norm_eps is -1e-05;"},
        HostileConfig{"EpsHuge", Mixtral(R"("rms_norm_eps": 1e30)"), "rms_norm_eps is 1e+30;"},
        HostileConfig{"EpsDenormal", Mixtral(R"("rms_norm_eps": 1e-320)"), "rms_norm_eps is 1e-320;"},
        HostileConfig{"EpsString", Mixtral(R"("rms_norm_eps": "NaN")"), "rms_norm_eps is \"NaN\"; it must be a number"},
        HostileConfig{"TiedNumber", Mixtral(R"("tie_word_embeddings": 1)"),
                      "tie_word_embeddings is 1; it must be true or false"},
        HostileConfig{"EosNegative", Mixtral(R"("eos_token_id": -1)"),
                      "eos_token_id is -1; it must be an integer from 0 to 99"},
        HostileConfig{"EosOutsideVocabulary", Mixtral(R"("eos_token_id": [2, 100])"),
                      "eos_token_id is 100; it must be an integer from 0 to 99"},
        HostileConfig{"EosString", Mixtral(R"("eos_token_id": "</s>")"),
                      "eos_token_id is \"</s>\"; it must be an integer"},
        HostileConfig{"EosNested", Mixtral(R"("eos_token_id": [[1]])"),
                      "eos_token_id is an array; it must be an integer"},
        HostileConfig{"EosTooMany", Mixtral("\"eos_token_id\": [" + Repeat("1,", 99) + "1]"),
                      "eos_token_id has 100 elements; at most 64"}),
    NameOf);

INSTANTIATE_TEST_SUITE_P(
    M13Experts, HostileConfigTest,
    ::testing::Values(
        HostileConfig{"NoExperts", Mixtral(R"("num_local_experts": 0)"),
                      "num_local_experts is 0; it must be an integer from 1 to 65536"},
        HostileConfig{"TooManyExperts", Mixtral(R"("num_local_experts": 65537)"), "num_local_experts is 65537;"},
        HostileConfig{"TopKAboveExperts", Mixtral(R"("num_local_experts": 8, "num_experts_per_tok": 9)"),
                      "num_experts_per_tok is 9, but num_local_experts is 8; it must be from 1 to num_local_experts"},
        HostileConfig{"TopKZero", Mixtral(R"("num_experts_per_tok": 0)"), "num_experts_per_tok is 0;"},
        HostileConfig{"TopKNegative", Mixtral(R"("num_experts_per_tok": -2)"), "num_experts_per_tok is -2;"},
        HostileConfig{"ExpertCountsDiffer", Mixtral(R"("num_local_experts": 4, "num_experts": 8)"),
                      "num_local_experts is 4, but num_experts is 8"},
        HostileConfig{"TopKsDiffer", Mixtral(R"("num_experts_per_tok": 1, "experts_per_token": 2)"),
                      "num_experts_per_tok is 1, but experts_per_token is 2"},
        HostileConfig{"DeepseekWithoutExperts", R"({"model_type": "deepseek", "num_experts_per_tok": 2})",
                      "n_routed_experts is missing; it must be an integer from 1 to 65536"},
        HostileConfig{"DeepseekWithoutTopK", R"({"model_type": "deepseek", "n_routed_experts": 4})",
                      "num_experts_per_tok is missing;"},
        HostileConfig{"NormProbText", Of("olmoe", R"("norm_topk_prob": "yes")"),
                      "norm_topk_prob is \"yes\"; it must be true or false"},
        HostileConfig{"SparseStepZero", Of("qwen3_moe", R"("decoder_sparse_step": 0)"), "decoder_sparse_step is 0;"},
        HostileConfig{"SparseStepBeyondLayers", Of("qwen3_moe", R"("decoder_sparse_step": 1000)"),
                      "no layer has experts; every layer is dense"},
        HostileConfig{"DenseLayerOutside", Of("qwen3_moe", R"("mlp_only_layers": [24])"),
                      "mlp_only_layers is 24; it must be an integer from 0 to 23"},
        HostileConfig{"DenseLayersText", Of("qwen3_moe", R"("mlp_only_layers": ["a"])"),
                      "mlp_only_layers is \"a\"; it must be an integer"},
        HostileConfig{"DenseLayersTooMany", Of("qwen3_moe", "\"mlp_only_layers\": [" + Repeat("0,", 5000) + "0]"),
                      "mlp_only_layers has 5001 elements; at most 24"},
        HostileConfig{"FirstDenseBeyondLayers",
                      Of("deepseek", R"("n_routed_experts": 4, "num_experts_per_tok": 1, "first_k_dense_replace": 31)"),
                      "first_k_dense_replace is 31;"},
        HostileConfig{"AllDense",
                      Of("deepseek", R"("n_routed_experts": 4, "num_experts_per_tok": 1, "first_k_dense_replace": 30)"),
                      "no layer has experts"},
        HostileConfig{"MoeFrequencyZero",
                      Of("deepseek", R"("n_routed_experts": 4, "num_experts_per_tok": 1, "moe_layer_freq": 0)"),
                      "moe_layer_freq is 0;"}),
    NameOf);

INSTANTIATE_TEST_SUITE_P(
    M13Attention, HostileConfigTest,
    ::testing::Values(
        HostileConfig{"HeadsZero", R"({"model_type": "mixtral", "num_attention_heads": 0})",
                      "num_attention_heads is 0;"},
        HostileConfig{"HeadsHuge", R"({"model_type": "mixtral", "num_attention_heads": 5000})",
                      "num_attention_heads is 5000; it must be an integer from 1 to 4096"},
        HostileConfig{
            "HiddenNotDivisible", R"({"model_type": "mixtral", "hidden_size": 100, "num_attention_heads": 16})",
            "hidden_size is 100 and num_attention_heads is 16; without head_dim, hidden_size must be an even multiple"},
        HostileConfig{"HeadsAboveHidden", R"({"model_type": "mixtral", "hidden_size": 8})",
                      "hidden_size is 8 and num_attention_heads is 32"},
        HostileConfig{"OddDerivedHeadDim", R"({"model_type": "mixtral", "hidden_size": 96})",
                      "hidden_size is 96 and num_attention_heads is 32"},
        HostileConfig{"OddHeadDim", Mixtral(R"("head_dim": 7, "num_key_value_heads": 2)"),
                      "head_dim is 7; it must be even"},
        HostileConfig{"HeadDimZero", Mixtral(R"("head_dim": 0)"), "head_dim is 0;"},
        HostileConfig{"HeadDimHuge", Mixtral(R"("head_dim": 1000000)"), "head_dim is 1000000;"},
        HostileConfig{"KvHeadsNotDividing", Mixtral(R"("num_key_value_heads": 3)"),
                      "num_key_value_heads is 3, but num_attention_heads is 4; it must divide that"},
        HostileConfig{"KvHeadsAboveHeads", Mixtral(R"("num_key_value_heads": 8)"),
                      "num_key_value_heads is 8, but num_attention_heads is 4"},
        HostileConfig{"KvHeadsZero", Mixtral(R"("num_key_value_heads": 0)"), "num_key_value_heads is 0;"},
        HostileConfig{"WindowZero", Mixtral(R"("sliding_window": 0)"), "sliding_window is 0;"},
        HostileConfig{"WindowNegative", Mixtral(R"("sliding_window": -7)"), "sliding_window is -7;"},
        HostileConfig{"QwenWindowSwitchText", Of("qwen2_moe", R"("use_sliding_window": "true")"),
                      "use_sliding_window is \"true\"; it must be true or false"},
        HostileConfig{"LayerTypesShort",
                      Of("qwen2_moe", R"("use_sliding_window": true, "layer_types": ["full_attention"])"),
                      "layer_types has 1 elements, but the model has 24 layers"},
        HostileConfig{"LayerTypesNumbers", Of("qwen2_moe", R"("use_sliding_window": true, "layer_types": [1])"),
                      "layer_types is an array; it must be a list of at most 24 strings"},
        HostileConfig{"ClipNegative", Of("olmoe", R"("clip_qkv": -1)"), "clip_qkv is -1;"},
        HostileConfig{"ClipZero", Of("olmoe", R"("clip_qkv": 0)"), "clip_qkv is 0;"},
        HostileConfig{"BiasText", Of("qwen3_moe", R"("attention_bias": "no")"), "attention_bias is \"no\";"},
        HostileConfig{"PartialRotary", Mixtral(R"("partial_rotary_factor": 0.5)"),
                      "partial_rotary_factor is 0.5; this family turns whole heads"}),
    NameOf);

INSTANTIATE_TEST_SUITE_P(
    M13Blocks, HostileConfigTest,
    ::testing::Values(
        HostileConfig{"GroupsNotDividing", Of("deepseek_v3", R"("n_group": 7)"),
                      "n_group is 7 and topk_group is 4, but 8 of 256 experts are chosen; groups must be equal"},
        HostileConfig{"MoreGroupsKeptThanThereAre", Of("deepseek_v3", R"("topk_group": 9)"),
                      "n_group is 8 and topk_group is 9"},
        HostileConfig{"GroupsTooSmall", Of("deepseek_v3", R"("n_group": 256, "topk_group": 4)"),
                      "n_group is 256 and topk_group is 4, but 8 of 256 experts are chosen"},
        HostileConfig{"GroupsZero", Of("deepseek_v3", R"("n_group": 0)"), "n_group is 0;"},
        HostileConfig{"LatentHuge", Of("deepseek_v3", R"("kv_lora_rank": 1000000000)"), "kv_lora_rank is 1000000000;"},
        HostileConfig{"LatentAndRopeTooWide", Of("deepseek_v3", R"("kv_lora_rank": 1000)"),
                      "kv_lora_rank and qk_rope_head_dim add up to 1064; at most 1024 are possible"},
        HostileConfig{"LatentNull", Of("deepseek_v3", R"("kv_lora_rank": 0)"), "kv_lora_rank is 0;"},
        HostileConfig{"ValueDimNegative", Of("deepseek_v2", R"("num_experts_per_tok": 2, "v_head_dim": -4)"),
                      "v_head_dim is -4;"},
        HostileConfig{"QueryRankText", Of("deepseek_v3", R"("q_lora_rank": "none")"), "q_lora_rank is \"none\";"},
        HostileConfig{"ScaleHuge", Of("deepseek_v3", R"("routed_scaling_factor": 1e30)"),
                      "routed_scaling_factor is 1e+30;"},
        HostileConfig{"UnknownMethod", Of("deepseek_v2", R"("num_experts_per_tok": 2, "topk_method": "best")"),
                      "topk_method is \"best\"; \"greedy\" and \"group_limited_greedy\" are served"},
        HostileConfig{"RotatesAnOddNumber", Of("glm4_moe", R"("head_dim": 10)"),
                      "partial_rotary_factor makes 5 of 10 dimensions turn"},
        HostileConfig{"RotatesNothing", Of("glm4_moe", R"("partial_rotary_factor": 0, "head_dim": 128)"),
                      "partial_rotary_factor makes 0 of 128 dimensions turn"},
        HostileConfig{"RotatesMoreThanThereIs", Of("glm4_moe", R"("partial_rotary_factor": 2.0, "head_dim": 128)"),
                      "partial_rotary_factor is 2.0;"},
        HostileConfig{"ResidualMultiplierZero", Of("granitemoe", R"("residual_multiplier": 0)"),
                      "residual_multiplier is 0;"},
        HostileConfig{"LogitsScalingNegative", Of("granitemoe", R"("logits_scaling": -6)"), "logits_scaling is -6;"},
        HostileConfig{"AttentionConfigNumber", Of("dbrx", R"("attn_config": 3)"),
                      "attn_config is 3; it must be an object"},
        HostileConfig{"FfnConfigList", Of("dbrx", R"("ffn_config": [1])"), "ffn_config is an array; it must be an object"},
        HostileConfig{"NormPowerZero", Of("dbrx", R"("ffn_config": {"moe_normalize_expert_weights": 0})"),
                      "ffn_config.moe_normalize_expert_weights is 0;"},
        HostileConfig{"JitterNegative", Of("phimoe", R"("router_jitter_noise": -0.1)"), "router_jitter_noise is -0.1;"},
        HostileConfig{"ArcticNamesDiffer", Of("arctic", R"("parallel_attn_mlp_res": true, "use_residual": false)"),
                      "they mean the same"},
        HostileConfig{"SwigluLimitZero", Of("gpt_oss", R"("swiglu_limit": 0)"), "swiglu_limit is 0;"},
        HostileConfig{"TextConfigMissing", Of("llama4", R"("vocab_size": 100)"), "text_config is missing;"},
        HostileConfig{"TextConfigNumber", Of("llama4", R"("text_config": 1)"), "text_config is 1; it must be an object"},
        HostileConfig{"RopeLayersShort", Of("llama4_text", R"("no_rope_layers": [1, 0])"),
                      "no_rope_layers has 2 elements, but the model has 48 layers"},
        HostileConfig{"RopeLayersNotBinary", Of("llama4_text", R"("no_rope_layers": [2])"), "no_rope_layers is 2;"},
        HostileConfig{"MoeLayersBeyondLayers", Of("llama4_text", R"("moe_layers": [48])"), "moe_layers is 48;"},
        HostileConfig{"NoMoeLayers", Of("llama4_text", R"("moe_layers": [])"), "no layer has experts"},
        HostileConfig{"ChunkZero", Of("llama4_text", R"("attention_chunk_size": 0)"), "attention_chunk_size is 0;"},
        HostileConfig{"FloorScaleZero", Of("llama4_text", R"("floor_scale": 0)"), "floor_scale is 0;"},
        HostileConfig{"TuningText", Of("llama4_text", R"("attn_temperature_tuning": "yes")"),
                      "attn_temperature_tuning is \"yes\"; it must be true or false"},
        HostileConfig{"JetmoeTooManyHeads", Of("jetmoe", R"("num_key_value_heads": 4096)"),
                      "num_key_value_heads and num_experts_per_tok make 8192 heads; at most 4096 are possible"},
        HostileConfig{"NextnHuge", Of("deepseek_v3", R"("num_nextn_predict_layers": 1000000)"),
                      "num_nextn_predict_layers is 1000000;"},
        HostileConfig{"Fp8BlockZero",
                      Of("deepseek_v3", R"("quantization_config": {"quant_method": "fp8", "weight_block_size": [0, 128]})"),
                      "quantization_config.weight_block_size is 0;"},
        HostileConfig{"Fp8BlockOfOneSize",
                      Of("deepseek_v3", R"("quantization_config": {"quant_method": "fp8", "weight_block_size": [128]})"),
                      "quantization_config.weight_block_size is an array; fp8 weights are served with two sizes"},
        HostileConfig{"QuantMethodNumber", Of("gpt_oss", R"("quantization_config": {"quant_method": 4})"),
                      "quantization_config.quant_method is 4; it must be a string"}),
    NameOf);

INSTANTIATE_TEST_SUITE_P(
    M13Rope, HostileConfigTest,
    ::testing::Values(
        HostileConfig{"ThetaZero", Mixtral(R"("rope_theta": 0)"),
                      "rope_theta is 0; it must be a number from 1.001 to 1e+15"},
        HostileConfig{"ThetaNegative", Mixtral(R"("rope_theta": -10000.0)"), "rope_theta is -10000.0;"},
        HostileConfig{"ThetaOne", Mixtral(R"("rope_theta": 1)"), "rope_theta is 1;"},
        HostileConfig{"ThetaHuge", Mixtral(R"("rope_theta": 1e300)"), "rope_theta is 1e+300;"},
        HostileConfig{"ThetaText", Mixtral(R"("rope_theta": "1e6")"), "rope_theta is \"1e6\"; it must be a number"},
        HostileConfig{"ThetaZeroInside", Mixtral(R"("rope_parameters": {"rope_theta": 0})"),
                      "rope_parameters.rope_theta is 0;"},
        HostileConfig{"ScalingText", Mixtral(R"("rope_scaling": "yarn")"),
                      "rope_scaling is \"yarn\"; it must be an object"},
        HostileConfig{"ScalingKindNumber", Mixtral(R"("rope_scaling": {"type": 3})"),
                      "rope_scaling.type is 3; it must be a string"},
        HostileConfig{"ScalingWithoutKind", Mixtral(R"("rope_scaling": {"factor": 2})"),
                      "rope_scaling.rope_type is missing; a factor stands beside it"},
        HostileConfig{"ScalingKindsDiffer",
                      Mixtral(R"("rope_scaling": {"type": "yarn", "rope_type": "linear", "factor": 2})"),
                      "they mean the same"},
        HostileConfig{"LinearWithoutFactor", Mixtral(R"("rope_scaling": {"type": "linear"})"),
                      "rope_scaling.factor is missing; this kind of scaling needs it"},
        HostileConfig{"FactorZero", Mixtral(R"("rope_scaling": {"type": "linear", "factor": 0})"),
                      "rope_scaling.factor is 0;"},
        HostileConfig{"FactorBelowOne", Mixtral(R"("rope_scaling": {"type": "yarn", "factor": 0.5})"),
                      "rope_scaling.factor is 0.5;"},
        HostileConfig{"FactorHuge", Mixtral(R"("rope_scaling": {"type": "yarn", "factor": 1e30})"),
                      "rope_scaling.factor is 1e+30;"},
        HostileConfig{
            "YarnOriginalZero",
            Mixtral(R"("rope_scaling": {"type": "yarn", "factor": 2, "original_max_position_embeddings": 0})"),
            "rope_scaling.original_max_position_embeddings is 0;"},
        HostileConfig{"YarnBetaZero", Mixtral(R"("rope_scaling": {"type": "yarn", "factor": 2, "beta_slow": 0})"),
                      "rope_scaling.beta_slow is 0;"},
        HostileConfig{"YarnAttentionFactorNegative",
                      Mixtral(R"("rope_scaling": {"type": "yarn", "factor": 2, "attention_factor": -1})"),
                      "rope_scaling.attention_factor is -1;"},
        HostileConfig{
            "Llama3BoundsSwapped",
            Mixtral(R"("rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1})"),
            "rope_scaling.low_freq_factor is 4, above high_freq_factor"},
        HostileConfig{"Dynamic", Mixtral(R"("rope_scaling": {"type": "dynamic", "factor": 2})"),
                      "RoPE scaling of the kind \"dynamic\" is not served"},
        HostileConfig{"LongropeTooMany",
                      Mixtral(R"("num_key_value_heads": 4, "rope_scaling": {"type": "longrope", "short_factor": [1,1,1,1,1]})"),
                      "rope_scaling.short_factor is an array; it must be a list of at most 4 numbers"},
        HostileConfig{"LongropeZero",
                      Mixtral(R"("rope_scaling": {"type": "longrope", "short_factor": [1,1,1,0]})"),
                      "rope_scaling.short_factor is an array; it must be a list of at most 4 numbers from 1e-06"},
        HostileConfig{"LongropeShort",
                      Mixtral(R"("rope_scaling": {"type": "longrope", "short_factor": [1,1,1,1], "long_factor": [1]})"),
                      "rope_scaling.long_factor is an array; longrope needs 4 numbers there"},
        HostileConfig{"Longrope", Mixtral(R"("rope_scaling": {"type": "longrope"})"),
                      "rope_scaling.short_factor is missing; longrope needs 4 numbers there"},
        HostileConfig{"PartialRotaryInside", Mixtral(R"("rope_parameters": {"partial_rotary_factor": 0.5})"),
                      "rope_parameters.partial_rotary_factor is 0.5; this family turns whole heads"},
        HostileConfig{"UnknownKind", Mixtral(R"("rope_scaling": {"type": "\u0007"})"),
                      "RoPE scaling of the kind \"?\" is not served"}),
    NameOf);

}  // namespace
}  // namespace switchyard
