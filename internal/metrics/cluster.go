package metrics

// ClusterNodes sets how many nodes of the cluster live, this one included.
func (m *Metrics) ClusterNodes(n int) {
	if m != nil {
		m.clusterNodes.WithLabelValues(m.port).Set(float64(n))
	}
}

// ClusterRefused books a message of the broker that was not taken.
func (m *Metrics) ClusterRefused(reason string) {
	if m != nil {
		m.clusterRefused.WithLabelValues(m.port, reason).Inc()
	}
}

// ClusterResync books a partition of a peer that has to be fetched whole.
func (m *Metrics) ClusterResync(reason string) {
	if m != nil {
		m.clusterResyncs.WithLabelValues(m.port, reason).Inc()
	}
}

// ClusterDifferences sets how many entries of the directory are known to be
// wrong.
func (m *Metrics) ClusterDifferences(n int) {
	if m != nil {
		m.clusterDifferences.WithLabelValues(m.port).Set(float64(n))
	}
}

// BusReconnected books that the broker was lost and found again.
func (m *Metrics) BusReconnected(driver string) {
	if m != nil {
		m.reconnections.WithLabelValues(driver).Inc()
	}
}

// BusDropped books an event that the broker did not take.
func (m *Metrics) BusDropped(driver string) {
	if m != nil {
		m.dropped.WithLabelValues(driver).Inc()
	}
}

// ClusterDropped books events of peers that a channel was too busy for.
func (m *Metrics) ClusterDropped(events int) {
	if m != nil {
		m.clusterDropped.WithLabelValues(m.port).Add(float64(events))
	}
}
