// Reading the components of tokenizer.json: members, their defaults, sequences of components.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/json.h"

namespace terse {

// The member `name` of object; Error(schema) if it is absent. `what` names the object.
inline JsonValue required_field(JsonValue object, std::string_view name, std::string_view what) {
  const auto member = object.find(name);
  check(member.found, ErrorClass::schema, object.source(), ": ", what, " has no \"", name, "\"");
  return *member;
}

// The boolean member `name` of object, or fallback where it is absent or null; Error(schema) if it
// is neither.
inline bool flag_field(JsonValue object, std::string_view name, bool fallback) {
  const auto member = object.find(name);
  return member && !member->is_null() ? member->as_boolean(name) : fallback;
}

// The "type" of a component; Error(schema) if that is not an object with a string of that name.
inline std::string_view type_field(JsonValue component, std::string_view what) {
  return required_field(component.as_object(what), "type", what).as_string("type");
}

// More steps than this in one pipeline are refused: each costs a pass over every text.
inline constexpr std::size_t kMaxPipelineSteps = 64;

// Calls on_step(component, type) for every component of a pipeline, in order: definition itself, or
// what its "Sequence" (and those inside it) lists under `list_name`. Nothing for null. Throws
// Error: schema, limit (more than kMaxPipelineSteps).
template <class OnStep>
void for_each_step(JsonValue definition, std::string_view list_name, std::string_view what,
                   OnStep on_step) {
  if (definition.is_null()) return;
  std::vector<JsonValue> pending = {definition};
  std::size_t steps = 0;
  while (!pending.empty()) {
    const JsonValue component = pending.back();
    pending.pop_back();
    const std::string_view type = type_field(component, what);
    if (type != "Sequence") {
      check(++steps <= kMaxPipelineSteps, ErrorClass::limit, definition.source(), ": ", what,
            " has more than ", kMaxPipelineSteps, " steps");
      on_step(component, type);
      continue;
    }
    const JsonValue list = required_field(component, list_name, what).as_array(list_name);
    const auto first = static_cast<std::ptrdiff_t>(pending.size());
    for (const JsonValue inner : list) pending.push_back(inner);
    std::reverse(pending.begin() + first, pending.end());
  }
}

// A step of a pipeline, of any kind: a class with apply(Arguments...) const and describe() const.
// A variant of the kinds would do, but takes compilers far longer than the kinds themselves.
template <class... Arguments>
class PipelineStep {
 public:
  template <class Kind>
  PipelineStep(Kind kind) : kind_(new KindOf<Kind>(std::move(kind))) {}

  void apply(Arguments... arguments) const { kind_->apply(arguments...); }
  std::string describe() const { return kind_->describe(); }

 private:
  struct AnyKind {
    virtual ~AnyKind() = default;
    virtual void apply(Arguments... arguments) const = 0;
    virtual std::string describe() const = 0;
  };
  template <class Kind>
  struct KindOf final : AnyKind {
    explicit KindOf(Kind&& kind_) : kind(std::move(kind_)) {}
    void apply(Arguments... arguments) const override { kind.apply(arguments...); }
    std::string describe() const override { return kind.describe(); }
    Kind kind;
  };

  std::unique_ptr<const AnyKind> kind_;
};

// The descriptions of a pipeline's steps in one line; "none" if it is empty.
template <class Steps>
std::string describe_steps(const Steps& steps) {
  std::string text;
  for (const auto& step : steps) {
    if (!text.empty()) text += ", ";
    text += step.describe();
  }
  return text.empty() ? "none" : text;
}

}  // namespace terse
