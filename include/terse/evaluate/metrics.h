// Measures of a run against judgements, by trec_eval's definitions.
//
// Equal scores make a group of ranks. How a group is ordered is the tie rule's choice; with
// TieRule::average it is not ordered at all, and every measure is its mean over all orders. One set
// of formulas does both: an order is a sequence of groups of one document each.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/evaluate/qrels.h"
#include "terse/evaluate/run.h"

namespace terse {

enum class Measure : std::uint8_t {
  ndcg,
  average_precision,
  reciprocal_rank,
  recall,
  precision,
  success,
  r_precision,
  binary_preference
};

// A measure of the first `cutoff` ranks.
struct Metric {
  static constexpr std::size_t kAllRanks = std::numeric_limits<std::size_t>::max();

  std::string name;  // as it was asked for: "ndcg@10"
  Measure measure = Measure::ndcg;
  std::size_t cutoff = kAllRanks;
};

namespace detail {

// Whether a measure has a cut-off: may have one, must have one, has none.
enum class Cutoff : std::uint8_t { optional, required, none };

struct NamedMeasure {
  std::string_view name;
  Measure measure;
  Cutoff cutoff;
};

inline constexpr NamedMeasure kMeasures[] = {{"ndcg", Measure::ndcg, Cutoff::optional},
                                             {"map", Measure::average_precision, Cutoff::optional},
                                             {"mrr", Measure::reciprocal_rank, Cutoff::optional},
                                             {"recall", Measure::recall, Cutoff::optional},
                                             {"p", Measure::precision, Cutoff::required},
                                             {"success", Measure::success, Cutoff::required},
                                             {"rprec", Measure::r_precision, Cutoff::none},
                                             {"bpref", Measure::binary_preference, Cutoff::none}};

}  // namespace detail

// "ndcg", "map", "mrr" or "recall", alone (all ranks) or with "@k"; "p@k", "success@k"; "rprec",
// "bpref"; case aside. Throws Error(range).
inline Metric parse_metric(std::string_view name) {
  const std::size_t at = std::min(name.find('@'), name.size());
  std::string lower(name.substr(0, at));
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  const auto found =
      std::find_if(std::begin(detail::kMeasures), std::end(detail::kMeasures),
                   [&](const detail::NamedMeasure& entry) { return entry.name == lower; });
  bool ok = found != std::end(detail::kMeasures);
  Metric metric{std::string(name), ok ? found->measure : Measure::ndcg};
  if (at < name.size()) {
    const auto [end, error] =
        std::from_chars(name.data() + at + 1, name.data() + name.size(), metric.cutoff);
    ok = ok && found->cutoff != detail::Cutoff::none && error == std::errc() &&
         end == name.data() + name.size() && metric.cutoff > 0;
  } else {
    ok = ok && found->cutoff != detail::Cutoff::required;
  }
  check(
      ok, ErrorClass::range, "metric ", quote(name),
      ", expected ndcg, map, mrr or recall, with or without @k; p@k or success@k; rprec or bpref");
  return metric;
}

enum class TieRule : std::uint8_t {
  trec,     // descending document id
  input,    // the order of the run's lines, as most Python evaluators
  average,  // the mean over all orders
};

// The ranking of one query, as far as measures need it.
struct JudgedRanking {
  // Documents whose order counts as unknown; of one document in TieRule::trec and input.
  struct Group {
    std::size_t size = 0;
    std::size_t relevant = 0;
    std::size_t rejected = 0;  // judged with grade 0; negative grades count as not judged
    double gain = 0;           // sum of positive grades
  };
  // Ranks of equal score [begin, end) counted from 0, whatever the rule made of them.
  struct Tie {
    std::size_t begin = 0;
    std::size_t end = 0;
  };

  std::vector<Group> groups;
  std::vector<Tie> ties;            // of at least two documents
  std::vector<double> ideal_gains;  // positive grades of all judged documents, falling
  std::size_t num_rejected = 0;     // of all judged documents

  std::size_t num_relevant() const { return ideal_gains.size(); }

  // Documents that tie across the cut-off: as many as have the score of both rank k and rank k + 1;
  // 0 if those differ.
  std::size_t tied_at(std::size_t k) const {
    for (const Tie& tie : ties) {
      if (tie.begin < k && k < tie.end) return tie.end - tie.begin;
    }
    return 0;
  }
};

namespace detail {

// Positions of entries, best first; scores are compared as float32, as trec_eval compares them.
inline std::vector<std::size_t> rank_entries(std::span<const RunEntry> entries, TieRule rule) {
  std::vector<std::pair<float, std::size_t>> scored;
  scored.reserve(entries.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    scored.emplace_back(static_cast<float>(entries[i].score), i);
  }
  std::sort(scored.begin(), scored.end(), [&](const auto& a, const auto& b) {
    if (a.first != b.first) return a.first > b.first;
    if (rule != TieRule::trec) return a.second < b.second;
    return entries[a.second].document > entries[b.second].document;
  });
  std::vector<std::size_t> order;
  order.reserve(entries.size());
  for (const auto& [score, entry] : scored) order.push_back(entry);
  return order;
}

// Sum over ranks up to the cut-off of gain / log2(rank + 1).
inline double dcg(const JudgedRanking& ranking, std::size_t cutoff) {
  double sum = 0;
  std::size_t rank = 0;
  for (const auto& group : ranking.groups) {
    const double gain = group.gain / static_cast<double>(group.size);
    for (std::size_t i = 0; i < group.size && rank < cutoff; ++i) {
      sum += gain / std::log2(static_cast<double>(++rank) + 1);
    }
  }
  return sum;
}

inline double ideal_dcg(const JudgedRanking& ranking, std::size_t cutoff) {
  double sum = 0;
  for (std::size_t rank = 0; rank < std::min(cutoff, ranking.num_relevant()); ++rank) {
    sum += ranking.ideal_gains[rank] / std::log2(static_cast<double>(rank) + 2);
  }
  return sum;
}

// Expected number of relevant documents up to the cut-off.
inline double relevant_retrieved(const JudgedRanking& ranking, std::size_t cutoff) {
  double sum = 0;
  std::size_t rank = 0;
  for (const auto& group : ranking.groups) {
    const std::size_t counted = std::min(group.size, cutoff - std::min(cutoff, rank));
    sum += static_cast<double>(group.relevant) * static_cast<double>(counted) /
           static_cast<double>(group.size);
    rank += group.size;
  }
  return sum;
}

// Sum over ranks of the precision there, where a relevant document stands. Inside a group of n with
// r relevant, any document is relevant with probability r / n, and given that, each one before it
// with probability (r - 1) / (n - 1). Source: McSherry and Najork, ECIR 2008, section 3.
inline double summed_precision(const JudgedRanking& ranking, std::size_t cutoff) {
  double sum = 0;
  double relevant_before = 0;
  std::size_t rank = 0;
  for (const auto& group : ranking.groups) {
    const auto n = static_cast<double>(group.size);
    const auto r = static_cast<double>(group.relevant);
    const double others = group.size > 1 ? (r - 1) / (n - 1) : 0;
    for (std::size_t i = 0; i < group.size && rank < cutoff; ++i) {
      const double relevant_to_here = relevant_before + 1 + static_cast<double>(i) * others;
      sum += r / n * relevant_to_here / static_cast<double>(++rank);
    }
    if (rank >= cutoff) return sum;
    relevant_before += r;
  }
  return sum;
}

// 1 / rank of the first relevant document, 0 if it stands below the cut-off. In the first group
// that holds one, position i is the first relevant one with a probability that follows from drawing
// without replacement.
inline double reciprocal_rank(const JudgedRanking& ranking, std::size_t cutoff) {
  std::size_t rank = 0;
  for (const auto& group : ranking.groups) {
    if (group.relevant == 0) {
      rank += group.size;
      continue;
    }
    double sum = 0;
    double none_so_far = 1;
    for (std::size_t i = 0; i + group.relevant <= group.size && rank < cutoff; ++i) {
      const double hit = static_cast<double>(group.relevant) / static_cast<double>(group.size - i);
      sum += none_so_far * hit / static_cast<double>(++rank);
      none_so_far *= 1 - hit;
    }
    return sum;
  }
  return 0;
}

// Probability that a relevant document stands at or above the cut-off. The group that the cut-off
// goes through is drawn from without replacement.
inline double success(const JudgedRanking& ranking, std::size_t cutoff) {
  std::size_t rank = 0;
  for (const auto& group : ranking.groups) {
    const std::size_t drawn = std::min(group.size, cutoff - std::min(cutoff, rank));
    double none = 1;
    for (std::size_t i = 0; i < drawn; ++i) {
      const std::size_t others = group.size - std::min(group.size, group.relevant + i);
      none *= static_cast<double>(others) / static_cast<double>(group.size - i);
    }
    if (group.relevant > 0) return 1 - none;
    rank += group.size;
  }
  return 0;
}

// Sum over retrieved relevant documents of 1 - (rejected documents before it, at most R) /
// min(R, rejected documents). In a group, 0 .. all of its rejected documents come first with equal
// probability.
inline double summed_preference(const JudgedRanking& ranking) {
  const std::size_t most = ranking.num_relevant();
  const auto scale = static_cast<double>(std::min(most, ranking.num_rejected));
  double sum = 0;
  std::size_t before = 0;
  for (const auto& group : ranking.groups) {
    double preferred = 0;
    for (std::size_t i = before; i <= before + group.rejected; ++i) {
      preferred += i == 0 ? 1 : 1 - static_cast<double>(std::min(i, most)) / scale;
    }
    sum +=
        static_cast<double>(group.relevant) * preferred / static_cast<double>(group.rejected + 1);
    before += group.rejected;
  }
  return sum;
}

}  // namespace detail

// Ranks a query's documents and looks up their grades.
inline JudgedRanking judge(std::span<const RunEntry> entries, const Grades& grades, TieRule rule) {
  JudgedRanking ranking;
  const std::vector<std::size_t> order = detail::rank_entries(entries, rule);
  const auto score_at = [&](std::size_t rank) {
    return static_cast<float>(entries[order[rank]].score);
  };
  for (std::size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && score_at(end) == score_at(begin)) ++end;
    if (end - begin > 1) ranking.ties.push_back({begin, end});
    for (std::size_t rank = begin; rank < end; ++rank) {
      const auto grade = grades.find(entries[order[rank]].document);
      const bool relevant = grade != grades.end() && grade->second > 0;
      const bool rejected = grade != grades.end() && grade->second == 0;
      if (rule != TieRule::average || rank == begin) ranking.groups.emplace_back();
      auto& group = ranking.groups.back();
      ++group.size;
      group.relevant += relevant ? 1 : 0;
      group.rejected += rejected ? 1 : 0;
      group.gain += relevant ? static_cast<double>(grade->second) : 0;
    }
  }
  for (const auto& [document, grade] : grades) {
    if (grade > 0) ranking.ideal_gains.push_back(static_cast<double>(grade));
    if (grade == 0) ++ranking.num_rejected;
  }
  std::sort(ranking.ideal_gains.rbegin(), ranking.ideal_gains.rend());
  return ranking;
}

// One measure of one ranking; 0 for a query without relevant documents. With R relevant documents
// and all sums over ranks <= k:
//   ndcg       sum of gain / log2(rank + 1), divided by the same sum for the judged documents in
//              their best order; the gain is the grade itself
//   map        sum of the precision at each relevant document, divided by R
//   mrr        1 / rank of the first relevant document
//   recall     relevant documents, divided by R
//   p          relevant documents, divided by k, however many there are
//   success    1 if there is a relevant document
//   rprec      p with k = R
//   bpref      mean over the R of the share of rejected documents that stand behind it
// Source: Voorhees and Harman, TREC, 2005, chapter 3; Jarvelin and Kekalainen 2002 (nDCG); Buckley
// and Voorhees 2004 (bpref).
inline double measure(const Metric& metric, const JudgedRanking& ranking) {
  if (ranking.num_relevant() == 0) return 0;
  const auto num_relevant = static_cast<double>(ranking.num_relevant());
  switch (metric.measure) {
    case Measure::ndcg:
      return detail::dcg(ranking, metric.cutoff) / detail::ideal_dcg(ranking, metric.cutoff);
    case Measure::average_precision:
      return detail::summed_precision(ranking, metric.cutoff) / num_relevant;
    case Measure::reciprocal_rank:
      return detail::reciprocal_rank(ranking, metric.cutoff);
    case Measure::recall:
      return detail::relevant_retrieved(ranking, metric.cutoff) / num_relevant;
    case Measure::precision:
      return detail::relevant_retrieved(ranking, metric.cutoff) /
             static_cast<double>(metric.cutoff);
    case Measure::success:
      return detail::success(ranking, metric.cutoff);
    case Measure::r_precision:
      return detail::relevant_retrieved(ranking, ranking.num_relevant()) / num_relevant;
    default:
      return detail::summed_preference(ranking) / num_relevant;
  }
}

}  // namespace terse
