# tenon_embed(output namespace table file...): a source file with the texts of these files, as
#   const std::span<const std::pair<std::string_view, std::string_view>> table      {"name.cpp", "text"}, ..
# in the order given. It is made anew when one of them changes.
function(tenon_embed output space table)
  set(entries "")
  foreach(file ${ARGN})
    file(READ ${file} text)
    get_filename_component(name ${file} NAME)
    string(APPEND entries "    {\"${name}\", R\"embed(${text})embed\"},\n")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  endforeach()
  file(CONFIGURE OUTPUT ${output} @ONLY CONTENT
"#include <span>
#include <string_view>
#include <utility>

namespace @space@ {
namespace {
using Text = std::pair<std::string_view, std::string_view>;
constexpr Text kTexts[] = {
@entries@};
}  // namespace
extern const std::span<const Text> @table@;
const std::span<const Text> @table@ = kTexts;
}  // namespace @space@
")
endfunction()
