#include "client/view/expert_map.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/view/terminal.h"

namespace switchyard {
namespace {

constexpr int kWideCell = 7;    // "  ▄ 25%"
constexpr int kLeftColumn = 5;  // "layer"

struct Cell {
  int layer = 0;
  int expert = 0;
  uint64_t num_rows = 0;
  double share = 0;           // of the layer's rows
  double ratio = 0;           // to the mean of the layer
  double micros_per_row = 0;  // 0 without rows
};

uint64_t NumRows(const v1::LayerExpertLoad& layer) {
  return std::accumulate(layer.tokens_per_expert().begin(), layer.tokens_per_expert().end(), uint64_t{0});
}

std::vector<Cell> LayerCells(const v1::LayerExpertLoad& layer) {
  const auto num_rows = static_cast<double>(NumRows(layer));
  std::vector<Cell> cells;
  for (int expert = 0; expert < layer.tokens_per_expert_size(); ++expert) {
    Cell cell{.layer = layer.layer(), .expert = expert, .num_rows = layer.tokens_per_expert(expert)};
    if (cell.num_rows > 0) {
      cell.share = static_cast<double>(cell.num_rows) / num_rows;
      cell.ratio = cell.share * layer.tokens_per_expert_size();
      if (expert < layer.seconds_per_expert_size()) {
        cell.micros_per_row = 1e6 * layer.seconds_per_expert(expert) / static_cast<double>(cell.num_rows);
      }
    }
    cells.push_back(cell);
  }
  return cells;
}

double MeanMicrosPerRow(const v1::ExpertLoad& load) {
  double seconds = 0;
  uint64_t num_rows = 0;
  for (const auto& layer : load.layers()) {
    num_rows += NumRows(layer);
    seconds = std::accumulate(layer.seconds_per_expert().begin(), layer.seconds_per_expert().end(), seconds);
  }
  return num_rows == 0 ? 0 : 1e6 * seconds / static_cast<double>(num_rows);
}

class MapPainter {
 public:
  MapPainter(const v1::ExpertLoad& load, const ExpertMapStyle& style)
      : load_(load), style_(style), mean_micros_(MeanMicrosPerRow(load)) {
    const int room = style.width - kLeftColumn - static_cast<int>(RightHeader().size());
    wide_ = room >= load.num_experts() * kWideCell;
    cells_per_line_ =
        wide_ ? std::max(load.num_experts(), 1) : std::clamp(load.num_experts(), 8, std::max(room - 2, 8));
  }

  std::string Draw() const {
    std::string map = Header();
    for (const auto& layer : load_.layers()) map += Layer(layer);
    return map;
  }

 private:
  static std::string RightHeader() { return "   imbalance  active   ms/step"; }

  std::string Header() const {
    std::string header = "layer";
    if (!wide_) header += "  ";
    for (int expert = 0; expert < (wide_ ? load_.num_experts() : cells_per_line_); ++expert) {
      if (wide_) absl::StrAppendFormat(&header, "%*d", kWideCell, expert);
      if (!wide_ && expert % 10 == 0 && expert + 3 <= cells_per_line_) absl::StrAppendFormat(&header, "%-10d", expert);
    }
    if (!wide_) header.resize(static_cast<size_t>(kLeftColumn + 2 + cells_per_line_), ' ');
    return header + RightHeader() + "\n";
  }

  std::string Layer(const v1::LayerExpertLoad& layer) const {
    const std::vector<Cell> cells = LayerCells(layer);
    std::string lines = absl::StrFormat("%*d%s", kLeftColumn, layer.layer(), wide_ ? "" : "  ");
    for (size_t i = 0; i < cells.size(); ++i) {
      if (i > 0 && i % static_cast<size_t>(cells_per_line_) == 0) {
        if (i == static_cast<size_t>(cells_per_line_)) lines += RightColumns(layer);
        absl::StrAppend(&lines, "\n", std::string(kLeftColumn + 2, ' '));
      }
      lines += CellText(cells[i]);
    }
    if (static_cast<int>(cells.size()) <= cells_per_line_) lines += RightColumns(layer);
    return lines + "\n";
  }

  std::string CellText(const Cell& cell) const {
    const bool tokens = style_.metric == ExpertMetric::kTokens;
    const double ratio = tokens ? cell.ratio : (mean_micros_ == 0 ? 0 : cell.micros_per_row / mean_micros_);
    std::string text = cell.num_rows == 0 ? "·" : Block(ratio / 2);
    if (wide_ && tokens) absl::StrAppendFormat(&text, "%3.0f%%", 100 * cell.share);
    if (wide_ && !tokens) absl::StrAppendFormat(&text, "%4.0f", cell.micros_per_row);
    if (style_.color) text = switchyard::Paint(text, HeatColor(ratio));
    return (wide_ ? "  " : "") + text;
  }

  std::string RightColumns(const v1::LayerExpertLoad& layer) const {
    const auto num_active = std::count_if(layer.tokens_per_expert().begin(), layer.tokens_per_expert().end(),
                                          [](uint64_t num_rows) { return num_rows > 0; });
    const double steps = std::max(static_cast<double>(load_.num_steps()), 1.0);
    return absl::StrFormat("   %9.2f  %6s  %8.3f", ImbalanceRatio(layer),
                           absl::StrCat(num_active, "/", layer.tokens_per_expert_size()),
                           1e3 * layer.seconds() / steps);
  }

  const v1::ExpertLoad& load_;
  const ExpertMapStyle& style_;
  const double mean_micros_;
  bool wide_ = false;
  int cells_per_line_ = 0;
};

std::vector<Cell> HottestCells(const v1::ExpertLoad& load, int num_hottest) {
  std::vector<Cell> cells;
  for (const auto& layer : load.layers()) {
    for (const Cell& cell : LayerCells(layer)) {
      if (cell.num_rows > 0) cells.push_back(cell);
    }
  }
  std::stable_sort(cells.begin(), cells.end(), [](const Cell& a, const Cell& b) { return a.ratio > b.ratio; });
  cells.resize(std::min(cells.size(), static_cast<size_t>(std::max(num_hottest, 0))));
  return cells;
}

std::string RenderHottest(const v1::ExpertLoad& load, const ExpertMapStyle& style) {
  const std::vector<Cell> cells = HottestCells(load, style.num_hottest);
  if (cells.empty()) return "";
  std::string list =
      absl::StrFormat("\n%-24s %12s  %6s  %9s  %12s\n", "hottest experts", "rows", "share", "x mean", "us per row");
  for (const Cell& cell : cells) {
    const std::string line = absl::StrFormat("%-24s %12d  %5.1f%%  %9.2f  %12.1f",
                                             absl::StrFormat("layer %d expert %d", cell.layer, cell.expert),
                                             cell.num_rows, 100 * cell.share, cell.ratio, cell.micros_per_row);
    absl::StrAppend(&list, style.color ? Paint(line, HeatColor(cell.ratio)) : line, "\n");
  }
  return list;
}

bool SameShape(const v1::ExpertLoad& a, const v1::ExpertLoad& b) {
  if (a.layers_size() != b.layers_size()) return false;
  for (int i = 0; i < a.layers_size(); ++i) {
    if (a.layers(i).layer() != b.layers(i).layer()) return false;
    if (a.layers(i).tokens_per_expert_size() != b.layers(i).tokens_per_expert_size()) return false;
    if (a.layers(i).seconds_per_expert_size() != b.layers(i).seconds_per_expert_size()) return false;
  }
  return true;
}

void SubtractLayer(const v1::LayerExpertLoad& before, v1::LayerExpertLoad* layer) {
  for (int e = 0; e < layer->tokens_per_expert_size(); ++e) {
    layer->set_tokens_per_expert(e, layer->tokens_per_expert(e) - before.tokens_per_expert(e));
  }
  for (int e = 0; e < layer->seconds_per_expert_size(); ++e) {
    layer->set_seconds_per_expert(e, layer->seconds_per_expert(e) - before.seconds_per_expert(e));
  }
  layer->set_seconds(layer->seconds() - before.seconds());
  layer->set_dropped_tokens(layer->dropped_tokens() - before.dropped_tokens());
}

int64_t Nanos(const google::protobuf::Timestamp& time) { return time.seconds() * 1'000'000'000 + time.nanos(); }

}  // namespace

double ImbalanceRatio(const v1::LayerExpertLoad& layer) {
  const uint64_t num_rows = NumRows(layer);
  if (num_rows == 0) return 0;
  const uint64_t largest = *std::max_element(layer.tokens_per_expert().begin(), layer.tokens_per_expert().end());
  return static_cast<double>(largest) * layer.tokens_per_expert_size() / static_cast<double>(num_rows);
}

v1::ExpertLoad AddedSince(const v1::ExpertLoad& before, const v1::ExpertLoad& now) {
  if (!SameShape(before, now) || now.num_tokens() < before.num_tokens() || now.num_steps() < before.num_steps()) {
    return now;
  }
  v1::ExpertLoad added = now;
  added.set_num_tokens(now.num_tokens() - before.num_tokens());
  added.set_num_steps(now.num_steps() - before.num_steps());
  const int64_t nanos = Nanos(now.time()) - Nanos(before.time());
  added.mutable_period()->set_seconds(nanos / 1'000'000'000);
  added.mutable_period()->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
  for (int i = 0; i < now.layers_size(); ++i) SubtractLayer(before.layers(i), added.mutable_layers(i));
  return added;
}

std::string RenderExpertMap(const v1::ExpertLoad& load, const ExpertMapStyle& style) {
  return MapPainter(load, style).Draw() + RenderHottest(load, style);
}

}  // namespace switchyard
