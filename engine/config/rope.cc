#include "engine/config/rope.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/base/json.h"

namespace switchyard {
namespace {

constexpr double kMaxFactor = 1e6;
constexpr int kMaxLength = 1 << 30;

// One set of frequencies on its way from the plain to the scaled form, in double.
struct Frequencies {
  double theta = 0.0;
  int rotated_dim = 0;
  int max_position_embeddings = 0;
  int max_model_len = 0;
  std::vector<double> values;
  double attention_factor = 1.0;
  double softmax_factor = 1.0;
};

Frequencies PlainFrequencies(double theta, const RopeSpec& spec) {
  const int rotated_dim = spec.rotated_dim;
  Frequencies f;
  f.theta = theta;
  f.rotated_dim = rotated_dim;
  f.max_position_embeddings = spec.max_position_embeddings;
  f.max_model_len = spec.max_model_len > 0 ? spec.max_model_len : spec.max_position_embeddings;
  for (int m = 0; m < rotated_dim / 2; ++m) f.values.push_back(std::pow(theta, -2.0 * m / rotated_dim));
  return f;
}

double ReadFactor(const ConfigReader& scaling) {
  if (!scaling.HasValue("factor")) {
    scaling.problems().AddInvalid(absl::StrCat(scaling.Describe("factor"), "; this kind of scaling needs it"));
  }
  return scaling.Real("factor", 1.0, 1.0, kMaxFactor);
}

// It may sit inside, at the top level, or be left to max_position_embeddings.
double ReadOriginalLength(const ConfigReader& config, const ConfigReader& scaling, int max_position_embeddings) {
  const int top = config.Int("original_max_position_embeddings", max_position_embeddings, 1, kMaxLength);
  return scaling.Int("original_max_position_embeddings", top, 1, kMaxLength);
}

void ScaleLinear(const ConfigReader& scaling, Frequencies* f) {
  const double factor = ReadFactor(scaling);
  for (double& value : f->values) value /= factor;
}

void ScaleLlama3(const ConfigReader& config, const ConfigReader& scaling, Frequencies* f) {
  const double factor = ReadFactor(scaling);
  const double low = scaling.Real("low_freq_factor", 1.0, 1e-6, kMaxFactor);
  const double high = scaling.Real("high_freq_factor", 4.0, 1e-6, kMaxFactor);
  const double original = ReadOriginalLength(config, scaling, f->max_position_embeddings);
  if (low > high) scaling.problems().AddInvalid(scaling.Describe("low_freq_factor") + ", above high_freq_factor");
  for (double& value : f->values) {
    const double wavelength = 2.0 * std::numbers::pi / value;
    if (wavelength < original / high) continue;
    if (wavelength > original / low || low >= high) {
      value /= factor;
      continue;
    }
    const double blend = (original / wavelength - low) / (high - low);
    value = (1.0 - blend) * value / factor + blend * value;
  }
}

double YarnMscale(double factor, double mscale) { return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

double YarnAttentionFactor(const ConfigReader& scaling, double factor) {
  if (scaling.HasValue("attention_factor")) return scaling.Real("attention_factor", 1.0, 1e-6, kMaxFactor);
  const double mscale = scaling.Real("mscale", 0.0, 0.0, kMaxFactor);
  const double all_dim = scaling.Real("mscale_all_dim", 0.0, 0.0, kMaxFactor);
  if (mscale != 0.0 && all_dim != 0.0) return YarnMscale(factor, mscale) / YarnMscale(factor, all_dim);
  return YarnMscale(factor, 1.0);
}

void ScaleYarn(const ConfigReader& config, const ConfigReader& scaling, Frequencies* f) {
  const double factor = ReadFactor(scaling);
  const double original = ReadOriginalLength(config, scaling, f->max_position_embeddings);
  const double beta_fast = scaling.Real("beta_fast", 32.0, 1e-6, kMaxFactor);
  const double beta_slow = scaling.Real("beta_slow", 1.0, 1e-6, kMaxFactor);
  f->attention_factor = YarnAttentionFactor(scaling, factor);
  const double mscale = YarnMscale(factor, scaling.Real("mscale_all_dim", 0.0, 0.0, kMaxFactor));
  f->softmax_factor = mscale * mscale;

  // The pair that makes `rotations` turns over the original length.
  const auto pair_of = [&](double rotations) {
    return f->rotated_dim * std::log(original / (rotations * 2.0 * std::numbers::pi)) / (2.0 * std::log(f->theta));
  };
  double low = pair_of(beta_fast);
  double high = pair_of(beta_slow);
  if (scaling.Bool("truncate", true)) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, f->rotated_dim - 1.0);
  if (low == high) high += 0.001;
  for (size_t m = 0; m < f->values.size(); ++m) {
    const double ramp = std::clamp((static_cast<double>(m) - low) / (high - low), 0.0, 1.0);
    f->values[m] = f->values[m] * (1.0 - ramp) + f->values[m] / factor * ramp;
  }
}

double LongRopeAttentionFactor(const ConfigReader& scaling, bool use_long, double original, const Frequencies& f) {
  const char* const mscale = use_long ? "long_mscale" : "short_mscale";
  if (scaling.HasValue(mscale)) return scaling.Real(mscale, 1.0, 1e-6, kMaxFactor);
  if (scaling.HasValue("attention_factor")) return scaling.Real("attention_factor", 1.0, 1e-6, kMaxFactor);
  const double stretch = scaling.Real("factor", f.max_position_embeddings / original, 1e-6, kMaxFactor);
  return stretch <= 1.0 || original <= 1.0 ? 1.0 : std::sqrt(1.0 + std::log(stretch) / std::log(original));
}

void ScaleLongRope(const ConfigReader& config, const ConfigReader& scaling, Frequencies* f) {
  const double original = ReadOriginalLength(config, scaling, f->max_position_embeddings);
  const bool use_long = f->max_model_len > original;
  for (const char* key : {"short_factor", "long_factor"}) {
    const std::vector<double> factors = scaling.Reals(key, 1e-6, kMaxFactor, f->values.size());
    if (factors.size() != f->values.size()) {
      scaling.problems().AddInvalid(
          absl::StrCat(scaling.Describe(key), "; longrope needs ", f->values.size(), " numbers there"));
      return;
    }
    if (use_long != (std::string(key) == "long_factor")) continue;
    for (size_t m = 0; m < factors.size(); ++m) f->values[m] /= factors[m];
  }
  f->attention_factor = LongRopeAttentionFactor(scaling, use_long, original, *f);
}

double ReadTheta(const ConfigReader& config, const std::optional<ConfigReader>& scaling, const RopeSpec& spec) {
  // At 1 all pairs turn alike and the logarithm that yarn divides by is 0.
  constexpr double kMin = 1.001, kMax = 1e15;
  const double outer = config.Real(spec.theta_key, spec.default_theta, kMin, kMax);
  if (!scaling.has_value()) return outer;
  const double inner = scaling->Real("rope_theta", outer, kMin, kMax);
  if (config.HasValue(spec.theta_key) && inner != outer && inner != 0.0 && outer != 0.0) {
    config.problems().AddInvalid(
        absl::StrCat(config.Describe(spec.theta_key), ", but ", scaling->Describe("rope_theta"),
                     "; they mean the same"));
  }
  return inner;
}

std::string ReadKind(const std::optional<ConfigReader>& scaling) {
  if (!scaling.has_value()) return "default";
  const std::string name = scaling->NameInUse({"rope_type", "type"});
  if (!scaling->HasValue(name) && scaling->HasValue("factor")) {
    scaling->problems().AddInvalid(scaling->Describe(name) + "; a factor stands beside it");
  }
  return scaling->Text(name, "default");
}

void Scale(const ConfigReader& config, const std::optional<ConfigReader>& scaling, Frequencies* f) {
  const std::string kind = ReadKind(scaling);
  if (kind == "default") return;
  if (kind == "linear") return ScaleLinear(*scaling, f);
  if (kind == "llama3") return ScaleLlama3(config, *scaling, f);
  if (kind == "yarn") return ScaleYarn(config, *scaling, f);
  if (kind == "longrope") return ScaleLongRope(config, *scaling, f);
  config.problems().AddUnimplemented(absl::StrCat("RoPE scaling of the kind \"", Printable(kind),
                                                  "\" is not served; default, linear, llama3, yarn and longrope are"));
}

}  // namespace

Rope ReadRope(const ConfigReader& config, const RopeSpec& spec) {
  const std::optional<ConfigReader> parameters = config.Object("rope_parameters");
  std::optional<ConfigReader> scaling = parameters.has_value() ? parameters : config.Object("rope_scaling");
  nlohmann::json default_scaling;
  if (spec.default_scaling != nullptr && !config.IsPresent("rope_parameters") && !config.IsPresent("rope_scaling")) {
    default_scaling = nlohmann::json::parse(spec.default_scaling);
    scaling = ConfigReader(default_scaling, "rope_scaling.", &config.problems());
  }
  const double theta = ReadTheta(config, scaling, spec);
  if (theta == 0.0 || spec.max_position_embeddings == 0) return {};  // noted already
  Frequencies f = PlainFrequencies(theta, spec);
  Scale(config, scaling, &f);
  return {std::vector<float>(f.values.begin(), f.values.end()), static_cast<float>(f.attention_factor),
          static_cast<float>(f.softmax_factor)};
}

}  // namespace switchyard
