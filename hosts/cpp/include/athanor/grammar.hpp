// The state of one token sequence, kept by the rules in a file's metadata (training/domains/music/midi/rules.py
// describes their form). The rules are translated to numbers once; `mask` and `advance` allocate nothing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "json.hpp"

namespace athanor {

/// The ids of a vocabulary: kind -> first id and number of ids.
struct Vocabulary {
  struct Block {
    int first, count;
  };

  std::map<std::string, Block> blocks;
  std::vector<int> kind, value;    // of each id
  std::vector<std::string> names;  // of each kind

  Vocabulary(const Json& table, int size) : kind(size, -1), value(size, 0) {
    for (const auto& [name, range] : table.object()) {
      const Block block{range[0].integer(), range[1].integer()};
      if (block.first < 0 || block.count < 1 || block.first + block.count > size)
        throw std::runtime_error("the vocabulary's block `" + name + "` is not inside 0.." + std::to_string(size - 1));
      for (int at = 0; at < block.count; ++at) {
        kind[block.first + at] = static_cast<int>(names.size());
        value[block.first + at] = at;
      }
      names.push_back(name);
      blocks[name] = block;
    }
    if (std::find(kind.begin(), kind.end(), -1) != kind.end())
      throw std::runtime_error("the vocabulary has ids without a kind");
  }

  const Block& block(const std::string& name) const {
    const auto found = blocks.find(name);
    if (found == blocks.end()) throw std::runtime_error("the vocabulary has no ids of kind `" + name + "`");
    return found->second;
  }
  int first(const std::string& name) const { return block(name).first; }
  int kind_of(const std::string& name) const {
    return static_cast<int>(std::find(names.begin(), names.end(), name) - names.begin());
  }
};

class Grammar {
 public:
  Grammar(const Json& rules, const Vocabulary& vocabulary) : vocabulary_(&vocabulary) {
    for (const auto& [name, follows] : rules["stages"].object()) stages_.push_back(name);
    for (const auto& [name, follows] : rules["stages"].object()) {
      std::vector<int> next(vocabulary.names.size(), -1);
      for (const auto& [kind, stage] : follows.object()) next.at(vocabulary.kind_of(kind)) = stage_of(stage.text());
      next_.push_back(std::move(next));
    }
    for (const auto& [name, value] : rules["registers"].object()) {
      registers_.push_back(name);
      initial_.push_back(value.integer());
    }
    effects_.resize(stages_.size());
    for (const auto& [stage, effects] : rules["entering"].object())
      for (const Json& effect : effects.list()) effects_[stage_of(stage)].push_back(effect_of(effect));
    conditions_.resize(stages_.size());
    for (const Json& rule : rules["forbidden"].list())
      for (std::size_t stage = 0; stage < stages_.size(); ++stage)
        if (rule[0].text() == "*" || rule[0].text() == stages_[stage])
          for (const Json& kind : rule[1].list())
            conditions_[stage].push_back(condition_of(vocabulary.kind_of(kind.text()), rule[2]));
    start_ = stage_of(rules["start"].text());
    end_ = stage_of(rules["end"].text());
    restart();
  }

  void restart() {
    stage_ = start_;
    now_ = initial_;
  }

  bool finished() const { return stage_ == end_; }

  /// Writes 1 for the ids that may come next and 0 for the others; `allowed` has one byte an id.
  void mask(std::vector<std::uint8_t>& allowed) const {
    for (std::size_t id = 0; id < allowed.size(); ++id) {
      const int kind = vocabulary_->kind[id], value = vocabulary_->value[id];
      bool may = next_[stage_][kind] >= 0;
      for (const Condition& condition : conditions_[stage_])
        may = may && !(condition.kind == kind && holds(condition, value));
      allowed[id] = may;
    }
  }

  /// Reads an id that the mask allows. Throws std::runtime_error for one that may not follow.
  void advance(int id) {
    const int kind = vocabulary_->kind.at(id), value = vocabulary_->value[id];
    if (next_[stage_][kind] < 0)
      throw std::runtime_error("id " + std::to_string(id) + " is not legal after " + stages_[stage_]);
    stage_ = next_[stage_][kind];
    for (const Effect& effect : effects_[stage_]) {
      int& target = now_[effect.target];
      if (effect.what == Effect::set) target = effect.number;
      else if (effect.what == Effect::add) target += effect.number;
      else if (effect.what == Effect::value) target = value;
      else if (effect.what == Effect::digits) target = now_[effect.other] * effect.number + value;
      else if (value != target)
        for (const int other : effect.others) now_[other] = -1;
    }
  }

 private:
  struct Effect {
    enum What { set, add, value, digits, differs } what;
    int target, number = 0, other = 0;
    std::vector<int> others = {};
  };
  struct Condition {
    enum What { below, above, value_below, value_is, digits_are } what;
    int kind, target, number = 0, other = 0;
  };

  static int index(const std::vector<std::string>& names, const std::string& name, const char* what) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) throw std::runtime_error(std::string("the grammar has no ") + what + " `" + name + "`");
    return static_cast<int>(found - names.begin());
  }
  int stage_of(const std::string& name) const { return index(stages_, name, "stage"); }
  int register_of(const std::string& name) const { return index(registers_, name, "register"); }

  Effect effect_of(const Json& rule) const {
    const std::vector<std::string> names{"set", "add", "value", "digits", "differs"};
    Effect out{static_cast<Effect::What>(index(names, rule[0].text(), "effect")), register_of(rule[1].text())};
    if (out.what == Effect::set || out.what == Effect::add) out.number = rule[2].integer();
    if (out.what == Effect::digits) out.other = register_of(rule[2].text()), out.number = rule[3].integer();
    if (out.what == Effect::differs)
      for (const Json& other : rule[2].list()) out.others.push_back(register_of(other.text()));
    return out;
  }
  Condition condition_of(int kind, const Json& rule) const {
    const std::vector<std::string> names{"below", "above", "value below", "value is", "digits are"};
    Condition out{static_cast<Condition::What>(index(names, rule[0].text(), "condition")), kind,
                  register_of(rule[1].text())};
    if (out.what <= Condition::value_below) out.number = rule[2].integer();
    if (out.what == Condition::digits_are) out.other = register_of(rule[2].text()), out.number = rule[3].integer();
    return out;
  }
  bool holds(const Condition& condition, int value) const {
    const int now = now_[condition.target];
    switch (condition.what) {
      case Condition::below:
        return now < condition.number;
      case Condition::above:
        return now > condition.number;
      case Condition::value_below:
        return value < now + condition.number;
      case Condition::value_is:
        return value == now;
      case Condition::digits_are:
        return now_[condition.other] * condition.number + value == now;
    }
    return false;
  }

  const Vocabulary* vocabulary_;
  std::vector<std::string> stages_, registers_;
  std::vector<std::vector<int>> next_;  // stage, kind -> stage, or -1
  std::vector<std::vector<Effect>> effects_;
  std::vector<std::vector<Condition>> conditions_;
  std::vector<int> initial_, now_;
  int stage_ = 0, start_ = 0, end_ = 0;
};

}  // namespace athanor
