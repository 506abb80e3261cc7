#include "engine/egress/egress_pool.h"

#include <utility>

#include "queue/queue_name.h"

namespace postrider {

EgressPools::EgressPools(const Config& config) : sources_(!config.sources.empty()) {
    std::map<std::string_view, SourceId> numbers;
    std::vector<PoolMember> all;
    for (const auto& source : config.sources) {
        const auto number = static_cast<SourceId>(numbers.size() + 1);
        numbers.emplace(source.name, number);
        all.push_back({number, 1});
    }
    if (all.empty()) all.push_back({0, 1});
    add(std::string(kDefaultPool), std::move(all));
    for (const auto& pool : config.pools) {
        std::vector<PoolMember> members;
        for (const auto& member : pool.sources) members.push_back({numbers.at(member.name), member.weight});
        if (is_default_pool(pool.name))
            pools_[0].members = std::move(members);
        else
            add(pool.name, std::move(members));
    }
    for (const auto& source : config.sources) add(source.name, {{numbers.at(source.name), 1}});
}

void EgressPools::add(std::string name, std::vector<PoolMember> members) {
    const auto id = static_cast<PoolId>(pools_.size());
    ids_.emplace(name, id);
    pools_.push_back({id, std::move(name), std::move(members)});
}

const EgressPool* EgressPools::find(std::string_view name) const {
    if (is_default_pool(name) || !sources_) return &pools_[0];
    const auto found = ids_.find(name);
    return found == ids_.end() ? nullptr : &pools_[found->second];
}

}  // namespace postrider
