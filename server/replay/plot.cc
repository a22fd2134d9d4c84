// SPDX-License-Identifier: Apache-2.0
//
// The picture is drawn in steps: a frame maps sizes, by their logarithm, and ratios to places; then come the grid with
// the axes' numbers, the lines, and the legend above them. Colours are those of Okabe and Ito, which the colour-blind
// tell apart; each policy has its own marks and dashes as well.
#include "server/replay/plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include <fmt/format.h>

#include "base/check.h"

namespace larder::server::replay {
namespace {

constexpr double width = 760;
constexpr double height = 440;
constexpr double left = 64;
constexpr double right = width - 24;
constexpr double top = 84;
constexpr double bottom = height - 52;

struct style {
  std::string_view colour;
  std::string_view dashes;
  std::string_view mark;  // a path around its centre
};

style style_of(eviction_policy policy) {
  switch (policy) {
    case eviction_policy::sieve:
      return {"#0072b2", "none", "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z"};
    case eviction_policy::s3_fifo:
      return {"#d55e00", "8 3", "m-4 -4h8v8h-8z"};
    case eviction_policy::clock:
      return {"#009e73", "2 3", "m0 -5l5 9h-10z"};
    case eviction_policy::lru:
      return {"#cc79a7", "8 3 2 3", "m0 -5l5 5l-5 5l-5 -5z"};
  }
  LARDER_CHECK(false, "a policy without a style");
}

// Text that stands anywhere in XML.
std::string escaped(std::string_view text) {
  std::string safe;
  for (const char letter : text) {
    if (letter == '<') {
      safe += "&lt;";
    } else if (letter == '>') {
      safe += "&gt;";
    } else if (letter == '&') {
      safe += "&amp;";
    } else if (letter == '"') {
      safe += "&quot;";
    } else {
      safe += letter >= ' ' && letter <= '~' ? letter : '?';  // XML has no place for any other byte
    }
  }
  return safe;
}

// Where sizes and ratios stand.
struct frame {
  double size_least_log2;
  double size_most_log2;
  int percent_least;
  int percent_most;

  double x(bytes size) const {
    const double share =
        (std::log2(static_cast<double>(size.count)) - size_least_log2) / (size_most_log2 - size_least_log2);
    return left + share * (right - left);
  }
  double y(double ratio) const {
    return bottom - (100 * ratio - percent_least) / (percent_most - percent_least) * (bottom - top);
  }
};

frame frame_of(const picture& shown) {
  bytes least = shown.lines.front().points.front().first;
  bytes most = least;
  double ratio_least = 1;
  double ratio_most = shown.ratio_most;
  for (const picture::line& line : shown.lines) {
    least = std::min(least, line.points.front().first);
    most = std::max(most, line.points.back().first);
    for (const auto& [size, ratio] : line.points) {
      ratio_least = std::min(ratio_least, ratio);
      ratio_most = std::max(ratio_most, ratio);
    }
  }
  frame fitting{std::log2(static_cast<double>(least.count)), std::log2(static_cast<double>(most.count)), 0, 0};
  if (fitting.size_most_log2 - fitting.size_least_log2 < 1) {
    fitting.size_least_log2 -= 1;
    fitting.size_most_log2 += 1;
  }
  fitting.percent_least = static_cast<int>(std::floor(10 * ratio_least)) * 10;
  fitting.percent_most = static_cast<int>(std::ceil(10 * ratio_most)) * 10;
  if (fitting.percent_least >= fitting.percent_most) {
    fitting.percent_least = std::max(0, fitting.percent_least - 10);
    fitting.percent_most = fitting.percent_least + 10;
  }
  return fitting;
}

// A power of two, in the unit in which it is a small number.
std::string size_text(int log2) {
  constexpr std::array<std::string_view, 6> units = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  const int unit = std::clamp(log2 / 10, 0, static_cast<int>(units.size()) - 1);
  return fmt::format("{} {}", std::uint64_t{1} << (log2 - 10 * unit), units[static_cast<std::size_t>(unit)]);
}

std::string grid(const frame& place) {
  std::string parts;
  const int steps = (place.percent_most - place.percent_least) / 10;
  const int step = steps > 5 ? 20 : steps > 2 ? 10 : 5;
  for (int percent = place.percent_least; percent <= place.percent_most; percent += step) {
    const double y = place.y(percent / 100.0);
    parts += fmt::format("<path class=\"grid\" d=\"M{} {:.1f}H{}\"/>\n", left, y, right);
    parts += fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{} %</text>\n", left - 8, y + 4, percent);
  }
  const int first = static_cast<int>(std::ceil(place.size_least_log2 - 0.001));
  const int last = static_cast<int>(std::floor(place.size_most_log2 + 0.001));
  const int stride = 1 + (last - first) / 10;  // so that the numbers do not touch
  for (int log2 = first; log2 <= last; log2 += stride) {
    const double x = place.x(bytes{std::uint64_t{1} << log2});
    parts += fmt::format("<path class=\"grid\" d=\"M{:.1f} {}V{}\"/>\n", x, top, bottom);
    parts +=
        fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", x, bottom + 18, size_text(log2));
  }
  parts += fmt::format("<path class=\"axis\" d=\"M{0} {1}V{2}H{3}\"/>\n", left, top, bottom, right);
  parts += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">memory of the page cache</text>\n",
                       (left + right) / 2, bottom + 40);
  parts += fmt::format(
      "<text transform=\"translate(16 {:.1f}) rotate(-90)\" text-anchor=\"middle\">hit ratio (pages)</text>\n",
      (top + bottom) / 2);
  return parts;
}

std::string ceiling(const frame& place, double ratio) {
  const double y = place.y(ratio);
  return fmt::format(
      "<path class=\"ceiling\" d=\"M{} {:.1f}H{}\"/>\n"
      "<text x=\"{}\" y=\"{:.1f}\">no cache hits more: {:.1f} %</text>\n",
      left, y, right, left + 8, y < top + 20 ? y + 16 : y - 6, 100 * ratio);
}

std::string curve(const frame& place, const picture::line& line) {
  const style look = style_of(line.policy);
  std::string path;
  std::string marks;
  for (const auto& [size, ratio] : line.points) {
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? 'M' : 'L', place.x(size), place.y(ratio));
    marks += fmt::format("M{:.1f} {:.1f}{}", place.x(size), place.y(ratio), look.mark);
  }
  return fmt::format(
      "<path fill=\"none\" stroke=\"{0}\" stroke-width=\"2\" stroke-dasharray=\"{1}\" d=\"{2}\"/>\n"
      "<path fill=\"{0}\" d=\"{3}\"/>\n",
      look.colour, look.dashes, path, marks);
}

std::string legend(const picture& shown) {
  std::string parts;
  double x = left;
  for (const picture::line& line : shown.lines) {
    const style look = style_of(line.policy);
    parts += fmt::format(
        "<path fill=\"none\" stroke=\"{0}\" stroke-width=\"2\" stroke-dasharray=\"{1}\" d=\"M{2} 66h36\"/>"
        "<path fill=\"{0}\" d=\"M{3} 66{4}\"/><text x=\"{5}\" y=\"70\">{6}</text>\n",
        look.colour, look.dashes, x, x + 18, look.mark, x + 44, name_of(line.policy));
    x += 120;
  }
  return parts;
}

}  // namespace

std::string drawn(const picture& shown) {
  LARDER_CHECK(!shown.lines.empty() && !shown.lines.front().points.empty(), "a picture of nothing");
  const frame place = frame_of(shown);
  std::string text = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n"
      "<title>{2}</title>\n",
      width, height, escaped(shown.title));
  text +=
      "<style>\n"
      ".paper{fill:#ffffff}text{fill:#222222}.grid{stroke:#e2e2e2}.axis{fill:none;stroke:#555555}\n"
      ".ceiling{stroke:#777777;stroke-dasharray:4 4}\n"
      "@media (prefers-color-scheme:dark){.paper{fill:#16181c}text{fill:#e6e6e6}.grid{stroke:#33363c}\n"
      ".axis{stroke:#a0a0a0}.ceiling{stroke:#a0a0a0}}\n"
      "</style>\n";
  text += fmt::format("<rect class=\"paper\" width=\"{}\" height=\"{}\"/>\n", width, height);
  text += fmt::format("<text x=\"{}\" y=\"26\" font-size=\"17\">{}</text>\n", left, escaped(shown.title));
  text += fmt::format("<text x=\"{}\" y=\"46\">{}</text>\n", left, escaped(shown.subtitle));
  text += grid(place) + ceiling(place, shown.ratio_most);
  for (const picture::line& line : shown.lines) text += curve(place, line);
  return text + legend(shown) + "</svg>\n";
}

}  // namespace larder::server::replay
