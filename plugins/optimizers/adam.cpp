// Adam with L2 weight decay: see adam.hpp.
#include "adam.hpp"

TN_PLUGIN("Tenon", "1.0", tn::optimizer<Adam<false>>("adam", "Adam", "Kingma & Ba 2015, arXiv 1412.6980"))
