// How tokenizer.json writes its components (normalizer, pre_tokenizer, post_processor, decoder): an
// object with a "type", or null, or a Sequence of such objects.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <vector>

#include "terse/error.h"
#include "terse/json.h"

namespace terse {

// The member of an object that must be there. Throws Error(schema); `what` names the object.
inline JsonValue required_member(JsonValue object, std::string_view name, std::string_view what) {
  const auto member = object.as_object(what).find(name);
  check(bool{member}, ErrorClass::schema, object.source(), ": ", what, " has no ", quoted(name));
  return *member;
}

// The "type" of a component; `what` names the kind of component.
inline std::string_view component_type(JsonValue component, std::string_view what) {
  return required_member(component, "type", what).as_string("type");
}

// The components that are applied one after the other: none for null, several for a Sequence, whose
// list is called list_name; Sequences inside Sequences are laid out flat. Throws Error(schema).
inline std::vector<JsonValue> component_steps(JsonValue component, std::string_view what,
                                              std::string_view list_name) {
  std::vector<JsonValue> steps;
  std::vector<JsonValue> open;  // still to be looked at, the next one last
  if (!component.is_null()) open.push_back(component);
  while (!open.empty()) {
    const JsonValue step = open.back();
    open.pop_back();
    if (component_type(step, what) != "Sequence") {
      steps.push_back(step);
      continue;
    }
    const std::size_t bottom = open.size();
    const JsonValue list = required_member(step, list_name, what).as_array(list_name);
    for (const JsonValue inner : list) open.push_back(inner);
    std::reverse(open.begin() + static_cast<std::ptrdiff_t>(bottom), open.end());
  }
  return steps;
}

}  // namespace terse
