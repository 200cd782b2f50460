// Results as people read them: tables in Markdown, plots in SVG, the overview of all methods.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tools/zoo/result.h"

namespace tenon::zoo {

// Claims with their verdicts, then the metrics of every run: mean ± standard deviation.
std::string table(const Outcome& o);

// A plot for each metric that a claim is about: file name -> SVG.
std::map<std::string, std::string> plots(const Outcome& o);

// Writes result.json, result.md and the plots into a folder. Error: it can't be written.
Status write(const Outcome& o, const std::string& folder);

// Methods in a table: claims reproduced, and which are not. `results` holds a folder of results for each slug
// (runs/zoo); what is not there is looked up in the zoo folder itself. Error: a result file that can't be read.
Result<std::string> overview(const std::vector<Description>& zoo, const std::string& results);

}  // namespace tenon::zoo
